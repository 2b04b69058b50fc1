// SPDX-License-Identifier: Apache-2.0
//
// The distribution form on the GPU: blobs in device memory are decoded, or transcoded to the runtime form that the
// functions of cuda.hpp take.
//
//   auto blob = distribution::DeviceBlob::create(host_bytes, device_bytes);       // validates; keeps neither buffer
//   auto done = distribution::decode(*blob, values, cols, status, stream);        // asynchronous
//   // once the stream has come to its end, with `status` copied to the host:
//   auto sound = distribution::check(status_on_host);
//
// Built for compute capability 9.0 (H100, H200, GH200). Everything here is thread-safe; there is no global state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <unweight/distribution.hpp>
#include <unweight/result.hpp>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight::distribution {

/// A distribution blob in device memory whose header and tables have been validated. A small value: copy it freely. It
/// owns nothing: the device bytes must stay unchanged as long as work that reads them is pending.
class DeviceBlob {
 public:
  /// Validates header (with its checksum) and tables of a blob, and that `device_bytes` is an address on the current
  /// device. Does not read the device memory. The blocks' bytes are not looked at: the kernels check them, and say in a
  /// DeviceStatus what they found.
  ///
  /// Also loads the kernels, so that no later call has to. Not to be called while a stream of this thread is being
  /// captured.
  /// @param front         the blob in host memory, or as much of it as comes before its stream: front_bytes(); what
  ///                      follows is ignored
  /// @param device_bytes  the whole blob in device memory, aligned to kDeviceBlobAlignment; may be null for an empty
  ///                      tensor
  /// Errors: 20..25 as inspect(); kInvalidArgument (alignment, not device memory, shape beyond the kernels' limits:
  /// 2^31 rows, columns, blocks or tiles); kNoDevice; kCuda.
  [[nodiscard]] static Result<DeviceBlob> create(std::span<const std::byte> front, const void* device_bytes);

  [[nodiscard]] const MatrixShape& shape() const noexcept { return shape_; }
  [[nodiscard]] Layout layout() const noexcept { return layout_; }
  /// Device address of the blob's first byte.
  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  [[nodiscard]] std::uint64_t content_checksum() const noexcept { return content_checksum_; }
  // Of a coded blob; 0 otherwise.
  [[nodiscard]] std::uint64_t stream_bytes() const noexcept { return stream_bytes_; }
  [[nodiscard]] std::uint32_t class_count() const noexcept { return class_count_; }
  [[nodiscard]] std::uint32_t scale_count() const noexcept { return scale_count_; }
  [[nodiscard]] std::uint32_t table_units() const noexcept { return table_units_; }
  /// Of the device that the blob lies on.
  [[nodiscard]] std::uint32_t multiprocessors() const noexcept { return multiprocessors_; }

 private:
  DeviceBlob() = default;

  MatrixShape shape_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t stream_bytes_ = 0;
  std::uint64_t content_checksum_ = 0;
  std::uint32_t class_count_ = 0;
  std::uint32_t scale_count_ = 0;
  std::uint32_t table_units_ = 0;
  std::uint32_t multiprocessors_ = 0;
  Layout layout_ = Layout::kRaw;
};

/// How many bytes of a blob come before its stream: what DeviceBlob::create() needs of it. `header` has the blob's
/// first 256 bytes, or more. Errors: 20..25.
[[nodiscard]] Result<std::uint64_t> front_bytes(std::span<const std::byte> header);

/// What kernels found in a blob: a word of device memory, aligned to 8 bytes, which the caller sets to 0 first. Any
/// number of calls may share one: the gravest finding stays.
struct DeviceStatus {
  std::uint64_t word = 0;
};

/// The error that a status stands for, if any: kCorruptPayload names the lowest corrupt block; kChecksumMismatch.
[[nodiscard]] Result<void> check(const DeviceStatus& status);

/// Decodes the whole tensor: element (b, n, k) goes to values[(b * rows + n) * row_stride + k]. Nothing else is
/// written, also not the gaps between rows. The content's checksum is not computed.
///
/// Hostile bytes: nothing outside the blob is read and nothing outside the tensor written, whatever the blob's bytes
/// are. Of a corrupt block the values are unspecified, and `status` says so.
///
/// Asynchronous: enqueues one kernel or copy on `stream`. Allocates nothing, never synchronises, and may be captured
/// into a CUDA graph; a replay reads the blob again.
/// @param values      device memory of bfloat16 bit patterns, aligned to 2 bytes
/// @param row_stride  in values, at least cols
/// @param status      device memory; see there
/// @param stream      of the device that the blob lies on, which must be the current one; null is the default stream
/// Errors: kInvalidArgument (alignment, row_stride, null pointers); kNoDevice; kCuda.
[[nodiscard]] Result<void> decode(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride,
                                  DeviceStatus* status, cudaStream_t stream);

// ---- to the runtime form --------------------------------------------------------------------------------------------
//
// The runtime blob has the bytes that to_runtime() and unweight::encode() make on the CPU, checksums included. How
// large it is shows only when the tensor has been decoded. So there are two ways:
//  - transcode() in one call, to a buffer of encode_bound(shape) bytes, or of as many as the caller has;
//  - plan_transcode(), which says in a TranscodeOutcome how large the blob will be, then finish_transcode() into a
//  buffer
//    of that size.

struct TranscodeOptions {
  /// Bytes of decoded values in the workspace: a tensor that is larger is decoded three times, part by part. 0: the
  /// whole tensor.
  std::uint64_t slab_bytes = 0;
};

/// What came of a transcoding: memory that the device can write and the host can read in the end, aligned to 8 bytes
/// (page-locked host memory, or device memory to be copied).
struct TranscodeOutcome {
  DeviceStatus status;                  ///< what was found; the rest is meaningful only where check(status) says yes
  std::uint64_t blob_bytes = 0;         ///< of the runtime blob; known after plan_transcode()
  std::array<std::byte, 256> header{};  ///< of the runtime blob: after the end, for unweight::DeviceBlob
};

/// Bytes of device memory, aligned to 256, that transcoding needs: the decoded tensor, or slab_bytes of it, and for
/// each strip of 16 rows some 0.5 KiB and 4 bytes a tile of 1024 values. Errors: kInvalidArgument (slab_bytes too small
/// for a strip of the tensor, or shape too large).
[[nodiscard]] Result<std::size_t> transcode_workspace_bytes(const DeviceBlob& blob,
                                                            const TranscodeOptions& options = {});

/// The first half: decodes, checks the content's checksum, and finds out how large the runtime blob is.
///
/// Asynchronous: enqueues some kernels on `stream`. Allocates nothing, never synchronises, and may be captured.
/// @param workspace  transcode_workspace_bytes() of device memory; its contents do not matter
/// @param outcome    written at the end: status and blob_bytes
/// Errors: kInvalidArgument (alignment, null pointers, options); kNoDevice; kCuda. Errors of execution appear later.
[[nodiscard]] Result<void> plan_transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options,
                                          TranscodeOutcome* outcome, cudaStream_t stream);

/// The second half: writes the runtime blob. The workspace must be as plan_transcode() with the same blob and options
/// has left it.
/// @param out            device memory, aligned to kDeviceBlobAlignment; must not overlap blob and workspace
/// @param capacity_bytes of `out`. Where it is less than blob_bytes, or the first half found the blob corrupt, nothing
///                       is written and the status says so (kBufferTooSmall)
/// @param outcome        written at the end: status, blob_bytes and header
/// Errors: as above.
[[nodiscard]] Result<void> finish_transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options,
                                            void* out, std::uint64_t capacity_bytes, TranscodeOutcome* outcome,
                                            cudaStream_t stream);

/// Both halves.
[[nodiscard]] Result<void> transcode(const DeviceBlob& blob, void* workspace, const TranscodeOptions& options,
                                     void* out, std::uint64_t capacity_bytes, TranscodeOutcome* outcome,
                                     cudaStream_t stream);

/// The runtime blob that a transcoding has written to `device_bytes`: what unweight::DeviceBlob::create() would return
/// for it. Its tables are not validated again: they were made on the device. Errors: those of check(outcome.status); as
/// unweight::DeviceBlob::create().
[[nodiscard]] Result<unweight::DeviceBlob> transcoded_blob(const TranscodeOutcome& outcome, const void* device_bytes);

}  // namespace unweight::distribution
#pragma GCC visibility pop
