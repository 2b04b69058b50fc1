// SPDX-License-Identifier: Apache-2.0
//
// A device as loading sees it: memory, a queue of copies to it, and transcoding. src/cuda/loader has the real one;
// tests have one made of host memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <format/layout.hpp>
#include <memory>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>

namespace unweight::io {

/// A distribution blob on its way to the runtime form.
class Transcoding {
 public:
  Transcoding() = default;
  Transcoding(const Transcoding&) = delete;
  Transcoding& operator=(const Transcoding&) = delete;
  virtual ~Transcoding() = default;

  /// Whether the blob has been decoded and its size is known. With `wait` it is, then.
  [[nodiscard]] virtual Result<bool> is_planned(bool wait) = 0;
  /// Then: the runtime blob's size. Errors: the blob is corrupt.
  [[nodiscard]] virtual Result<std::uint64_t> blob_bytes() = 0;
  /// Starts writing it to `out`, which has room for it.
  [[nodiscard]] virtual Result<void> finish(std::byte* out) = 0;
  [[nodiscard]] virtual Result<bool> is_finished(bool wait) = 0;
  /// Then: its header.
  [[nodiscard]] virtual Result<std::array<std::byte, format::kHeaderBytes>> header() = 0;
};

class LoadDevice {
 public:
  LoadDevice() = default;
  LoadDevice(const LoadDevice&) = delete;
  LoadDevice& operator=(const LoadDevice&) = delete;
  virtual ~LoadDevice() = default;

  /// Host memory that copies can be made from while the host goes on. Freed with the device.
  [[nodiscard]] virtual Result<std::byte*> allocate_host(std::uint64_t size_bytes) = 0;
  /// Device memory, aligned to 256 bytes. Freed with the device.
  [[nodiscard]] virtual Result<std::byte*> allocate(std::uint64_t size_bytes) = 0;

  /// Enqueues a copy to device memory. The bytes stay until it is done.
  [[nodiscard]] virtual Result<void> copy(std::byte* to, std::span<const std::byte> from) = 0;
  /// The number of the latest copy.
  [[nodiscard]] virtual Result<std::uint64_t> latest_copy() = 0;
  /// Whether that copy, and those before it, are done. With `wait` they are, then.
  [[nodiscard]] virtual Result<bool> is_copied(std::uint64_t number, bool wait) = 0;

  /// Device memory that transcoding a tensor takes. `slab_bytes`: distribution::TranscodeOptions.
  [[nodiscard]] virtual Result<std::uint64_t> workspace_bytes(const MatrixShape& shape, std::uint64_t slab_bytes) = 0;
  /// Starts transcoding a blob that has been copied to `blob`. One at a time.
  /// @param front  what comes before its stream, validated
  [[nodiscard]] virtual Result<std::unique_ptr<Transcoding>> transcode(std::span<const std::byte> front,
                                                                       const std::byte* blob, std::byte* workspace,
                                                                       std::uint64_t slab_bytes) = 0;
};

}  // namespace unweight::io
