// SPDX-License-Identifier: Apache-2.0
//
// Blobs on the GPU. A blob's bytes are copied to device memory as they lie in the file, in one piece and without any
// rearrangement; a DeviceBlob says once, on the host, that they are sound, and the functions below take it from there.
//
//   auto blob = DeviceBlob::create(host_bytes, device_bytes);    // validates; keeps neither buffer
//   auto done = decode(*blob, device_values, cols, stream);      // asynchronous
//
// Built for compute capability 9.0 (H100, H200, GH200). Everything here is thread-safe; there is no global state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>

struct CUstream_st;
typedef CUstream_st* cudaStream_t;  // as in the CUDA runtime's own headers, which users of this one need not have

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// Alignment of a blob in device memory, in bytes: that of its sections. cudaMalloc() gives more, and so does the place
/// of a blob in an uploaded bundle file.
inline constexpr std::size_t kDeviceBlobAlignment = 128;

/// A blob in device memory whose header and tables have been validated. A small value: copy it freely. It owns nothing:
/// the device bytes must stay unchanged as long as work that reads them is pending.
class DeviceBlob {
 public:
  /// Validates header (with its checksum) and tables of `blob` (host memory, any alignment), and that `device_bytes`
  /// is an address on the current device. Does not read the device memory: the caller has copied, or has enqueued the
  /// copy of, inspect(blob)->blob_bytes bytes from `blob` there. The payload's checksum is not computed: verify_blob()
  /// does that; a damaged payload gives wrong values, never an access outside the blob or the output.
  ///
  /// Also loads the kernels, so that no later call has to. Takes time proportional to the number of rows and tiles.
  /// Not to be called while a stream of this thread is being captured.
  /// @param blob          whole blob; bytes that follow it are ignored
  /// @param device_bytes  its copy, aligned to kDeviceBlobAlignment; may be null for an empty tensor
  /// Errors: 20..25 as open; kInvalidArgument (alignment, not device memory, shape beyond the kernels' limits: 2^31
  /// rows, columns or tiles); kNoDevice; kCuda.
  [[nodiscard]] static Result<DeviceBlob> create(std::span<const std::byte> blob, const void* device_bytes);

  [[nodiscard]] const MatrixShape& shape() const noexcept { return shape_; }
  [[nodiscard]] BlobLayout layout() const noexcept { return layout_; }
  /// Device address of the blob's first byte.
  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  /// Of a tiled blob; 0 otherwise.
  [[nodiscard]] std::uint32_t palette_count() const noexcept { return palette_count_; }
  [[nodiscard]] std::uint8_t exception_base() const noexcept { return exception_base_; }

 private:
  DeviceBlob() = default;

  MatrixShape shape_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_bytes_ = 0;
  std::uint32_t palette_count_ = 0;
  BlobLayout layout_ = BlobLayout::kRaw;
  std::uint8_t exception_base_ = 0;
};

/// Decodes the whole tensor: element (b, n, k) goes to values[(b * rows + n) * row_stride + k]. Nothing else is
/// written, also not the gaps between rows. Every one of the 65,536 bit patterns comes back as it was.
///
/// Asynchronous: enqueues at most one kernel or copy on `stream`. Allocates nothing, never synchronises, and may be
/// captured into a CUDA graph; a replay reads the blob again.
/// @param values      device memory of bfloat16 bit patterns, aligned to 2 bytes; fastest when it and the rows are
///                    aligned to 16 bytes (row_stride a multiple of 8)
/// @param row_stride  in values, at least cols
/// @param stream      of the device that the blob lies on, which must be the current one; null is the default stream
/// Errors: kInvalidArgument (alignment, row_stride); kNoDevice; kCuda. Errors of execution appear later, as with every
/// kernel, on the stream.
[[nodiscard]] Result<void> decode(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride,
                                  cudaStream_t stream);

}  // namespace unweight
#pragma GCC visibility pop
