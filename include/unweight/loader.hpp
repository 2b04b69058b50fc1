// SPDX-License-Identifier: Apache-2.0
//
// Loads a bundle of either profile into device memory, tensor by tensor: blobs as runtime blobs, for the functions of
// cuda.hpp, everything else as it is. Blobs of the distribution form are transcoded on the device. Reading, copying and
// transcoding go on at the same time. A plain checkpoint can be loaded in the same way; its tensors are all raw.
//
//   LoadOptions options;
//   options.deliver = [&](const LoadedTensor& tensor) -> Result<void> { ...keep it...; return {}; };
//   auto report = load_to_device("my-model-small", options);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// A tensor that has been loaded.
struct LoadedTensor {
  std::string file;  ///< of the source, relative to its folder
  std::string name;
  Dtype dtype = Dtype::kBF16;        ///< of the source tensor
  std::vector<std::uint64_t> shape;  ///< of the source tensor
  StoredAs stored = StoredAs::kRaw;  ///< kBlob: a runtime blob; kRaw: its values; kAlias: `data` is another tensor's
  void* data = nullptr;              ///< device memory; null where there are no bytes
  std::uint64_t size_bytes = 0;      ///< of the blob, or of the values
  std::optional<DeviceBlob> blob{};  ///< of a blob, validated; of an alias, its original's
  std::string original_file{};       ///< kAlias: which tensor it shares `data` with, delivered before it
  std::string original_name{};
};

/// Device memory of the caller's.
struct LoadMemory {
  /// Memory of the current device for a tensor, aligned to kDeviceBlobAlignment; of which one, `file` and `name` say.
  /// What is returned belongs to the caller once its tensor has been delivered.
  std::function<Result<void*>(const std::string& file, const std::string& name, std::uint64_t size_bytes)> allocate{};
  /// Takes memory back that was not delivered, because loading has failed.
  std::function<void(void* memory)> release{};
};

struct LoadOptions {
  /// Receives every tensor as soon as it is there, in the order of the files, aliases at the end; on the thread that
  /// called load_to_device(). An error ends loading with it. Required.
  std::function<Result<void>(const LoadedTensor& tensor)> deliver{};
  LoadMemory memory{};                                         ///< empty: cudaMalloc() and cudaFree()
  unsigned threads = 4;                                        ///< that read files; 1 or more
  std::uint64_t host_buffer_bytes = std::uint64_t{128} << 20;  ///< page-locked memory that files are read into
  /// Device memory to be used beside what is delivered, while loading. 0: as much as the largest tensor's values. More
  /// is used where that is too little for a blob and a part of its tensor.
  std::uint64_t device_bytes = 0;
  /// Check the payload checksum of runtime blobs. What is transcoded is always checked against its content checksum,
  /// and headers and tables always are.
  bool verify = true;
};

struct LoadReport {
  bool is_bundle = false;
  Profile profile = Profile::kRuntime;  ///< of a bundle
  std::uint64_t tensors = 0;            ///< all
  std::uint64_t tensors_blob = 0;
  std::uint64_t tensors_raw = 0;
  std::uint64_t tensors_alias = 0;
  std::uint64_t stored_bytes = 0;        ///< read from files
  std::uint64_t loaded_bytes = 0;        ///< device memory of all tensors
  std::uint64_t device_extra_bytes = 0;  ///< device memory used beside that, while loading
  std::uint64_t host_buffer_bytes = 0;   ///< page-locked
  double seconds = 0;
};

/// Loads a bundle, a folder with safetensors files, or one such file, to the current device. Returns when everything
/// has been delivered; the work is done by then.
///
/// Host memory: the buffers, and for the blobs on their way their tables, some 0.2% of their size. Every byte from a
/// file is untrusted: a damaged or hostile bundle gives one error that names file and tensor. Errors: those of
/// decompress_bundle(); kInvalidArgument (options); kNoDevice; kCuda; those of the callbacks. After an error, tensors
/// that were delivered stay the caller's.
[[nodiscard]] Result<LoadReport> load_to_device(const std::filesystem::path& path, const LoadOptions& options);

}  // namespace unweight
#pragma GCC visibility pop
