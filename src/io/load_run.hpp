// SPDX-License-Identifier: Apache-2.0
//
// Loading: tensors are read, copied to the device and, where they come in the distribution form, transcoded there, all
// at the same time.
//
//   reader threads    files -> buffers in host memory
//   calling thread    buffers -> device, tensor by tensor: blobs of the runtime form and raw tensors to where they
//   stay,
//                     those of the distribution form to a ring, from which the device makes runtime blobs
//
// Every byte of a tensor is read once. What the host must see of a blob, its header and its tables, it keeps as it goes
// by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <io/load_device.hpp>
#include <io/load_source.hpp>
#include <span>
#include <unweight/result.hpp>

namespace unweight::io {

/// Who asks for the tensors. All calls come from the thread that runs load().
class LoadSink {
 public:
  LoadSink() = default;
  LoadSink(const LoadSink&) = delete;
  LoadSink& operator=(const LoadSink&) = delete;
  virtual ~LoadSink() = default;

  /// Device memory for a tensor's blob or, of a raw tensor, for its values; aligned to 128 bytes.
  [[nodiscard]] virtual Result<std::byte*> allocate(const LoadItem& item, std::uint64_t size_bytes) = 0;
  /// Takes memory back that will not be delivered.
  virtual void release(std::byte* data, std::uint64_t size_bytes) noexcept = 0;
  /// A tensor is there, all of it. In the order of the items.
  /// @param header  of the runtime blob, validated with its tables; empty for a raw tensor
  [[nodiscard]] virtual Result<void> deliver(const LoadItem& item, std::byte* data, std::uint64_t size_bytes,
                                             std::span<const std::byte> header) = 0;
};

struct LoadLimits {
  unsigned threads = 4;
  std::uint64_t host_buffer_bytes = 0;  ///< of all buffers; at least two are made
  /// Device memory beside what is delivered; at least what the largest tensors need to be transcoded part by part.
  std::uint64_t device_bytes = 0;
  bool verify = true;  ///< payload checksums of runtime blobs; the content of transcoded ones is always checked
};

struct LoadTotals {
  std::uint64_t stored_bytes = 0;        ///< read from tensors
  std::uint64_t loaded_bytes = 0;        ///< delivered
  std::uint64_t host_buffer_bytes = 0;   ///< page-locked
  std::uint64_t device_extra_bytes = 0;  ///< device memory that was allocated beside what is delivered
};

[[nodiscard]] Result<LoadTotals> load(const LoadSource& source, const LoadLimits& limits, LoadDevice& device,
                                      LoadSink& sink);

}  // namespace unweight::io
