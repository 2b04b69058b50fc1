// SPDX-License-Identifier: Apache-2.0
//
// Blobs on the GPU. A blob's bytes are copied to device memory as they lie in the file, in one piece and without any
// rearrangement; a DeviceBlob says once, on the host, that they are sound, and the functions below take it from there.
//
//   auto blob = DeviceBlob::create(host_bytes, device_bytes);    // validates; keeps neither buffer
//   auto done = decode(*blob, device_values, cols, stream);      // asynchronous
//   auto config = choose_matmul_config(*blob, tokens);
//   // once: workspace = matmul_workspace_bytes(*blob) bytes of device memory, zeroed
//   done = matmul(*blob, {.x = x, .x_stride = k, .y = y, .y_stride = n, .tokens = tokens, .workspace = workspace},
//                 *config, stream);
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

  /// As create(), for a blob that is not in host memory as a whole.
  /// @param header  its first 256 bytes, or more
  /// @param tables  the bytes of blob_tables(header)
  [[nodiscard]] static Result<DeviceBlob> create(std::span<const std::byte> header, std::span<const std::byte> tables,
                                                 const void* device_bytes);

  /// As create(), without looking at the tables: for a blob that this library has made in device memory
  /// (distribution_cuda.hpp) or that has been validated before. Kernels index with what the tables say.
  /// @param header  its first 256 bytes, or more; validated
  [[nodiscard]] static Result<DeviceBlob> create_unchecked(std::span<const std::byte> header, const void* device_bytes);

  /// As create(), for a blob of which the host has no copy: header and tables, 1.3% of a tiled blob, are copied from
  /// the device. Waits for `stream`, on which the blob may have been written.
  /// @param device_bytes  device memory that begins with the blob, aligned to kDeviceBlobAlignment; bytes that follow
  ///                      the blob are ignored
  [[nodiscard]] static Result<DeviceBlob> open(std::span<const std::byte> device_bytes, cudaStream_t stream);

  [[nodiscard]] const MatrixShape& shape() const noexcept { return shape_; }
  [[nodiscard]] BlobLayout layout() const noexcept { return layout_; }
  /// Device address of the blob's first byte.
  [[nodiscard]] const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  /// Of a tiled blob; 0 otherwise.
  [[nodiscard]] std::uint32_t palette_count() const noexcept { return palette_count_; }
  [[nodiscard]] std::uint8_t exception_base() const noexcept { return exception_base_; }
  /// Length of all exception lists, in units of 2 bytes; 0 for a raw blob.
  [[nodiscard]] std::uint64_t exception_units() const noexcept { return exception_units_; }
  /// Of the device that the blob lies on.
  [[nodiscard]] std::uint32_t multiprocessors() const noexcept { return multiprocessors_; }

 private:
  DeviceBlob() = default;
  friend Result<DeviceBlob> decode_to_raw(const DeviceBlob& blob, void* device_bytes, cudaStream_t stream);
  static Result<DeviceBlob> of_validated(std::span<const std::byte> header, const void* device_bytes);

  MatrixShape shape_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t exception_units_ = 0;
  std::uint32_t palette_count_ = 0;
  std::uint32_t multiprocessors_ = 0;
  BlobLayout layout_ = BlobLayout::kRaw;
  std::uint8_t exception_base_ = 0;
};

/// A range of a blob's bytes.
struct BlobRange {
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;
};

/// Where the tables of a blob lie that DeviceBlob::create() wants beside the header, the blob's first 256 bytes or
/// more. Empty for a raw blob. Errors: 20..25.
[[nodiscard]] Result<BlobRange> blob_tables(std::span<const std::byte> header);

// ---- full decode ----------------------------------------------------------------------------------------------------

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

/// Makes a raw blob of a tiled one: for weights that are kept raw, which a plan may ask for. Its values are decoded to
/// `device_bytes`; its header is zeros there, since no kernel reads it. Afterwards the tiled blob is not needed.
/// Asynchronous: the values are there when the stream has come so far.
/// @param device_bytes  encode_bound(blob.shape()) bytes on the blob's device, aligned to kDeviceBlobAlignment
/// Errors: as decode().
[[nodiscard]] Result<DeviceBlob> decode_to_raw(const DeviceBlob& blob, void* device_bytes, cudaStream_t stream);

// ---- some rows ------------------------------------------------------------------------------------------------------

/// Decodes rows of the tensor seen as one matrix of batch * rows rows, in any order, also repeatedly: the look-up of an
/// embedding. values[i * row_stride + k] = W[row_numbers[i], k]; nothing else is written. A row number outside of the
/// tensor gives a row of NaN (0x7fff).
///
/// Asynchronous: enqueues one kernel on `stream`. Allocates nothing, never synchronises, and may be captured into a
/// CUDA graph.
/// @param row_numbers  device memory, aligned to 8 bytes
/// @param values       device memory of bfloat16 bit patterns, aligned to 2 bytes; fastest where it and the rows are
///                     aligned to 4 bytes
/// @param row_stride   in values, at least cols
/// @param stream       of the device that the blob lies on, which must be the current one; null is the default stream
/// Errors: kInvalidArgument (alignment, row_stride, too many rows); kNoDevice; kCuda.
[[nodiscard]] Result<void> gather_rows(const DeviceBlob& blob, std::span<const std::int64_t> row_numbers,
                                       std::uint16_t* values, std::uint64_t row_stride, cudaStream_t stream);

// ---- matrix multiplication ----------------------------------------------------------------------------------------
//
// Y[M, N] = X[M, K] * W[N, K]^T + bias[N], where M = tokens, N = rows and K = cols of one matrix of the blob. W is
// decoded on chip: it is read once, compressed, and never written. X, Y and bias are bfloat16; products are summed in
// float.
//
// Determinism. The bits of Y depend on X, W, bias and the members `strips`, `split` and `warpgroup` of MatmulConfig,
// and on nothing else: not on how many other tokens there are, on the other members of the configuration, on the
// device's other work, or on whether the blob is tiled or raw. So a caller who always passes the same ones has
// batch-invariant results: row m of Y has the same bits for every number of tokens up to 64; and, if not split, for
// every number above 64, and up to there with strips = 16. With `split` they depend on the device's number of
// multiprocessors, too, and above 64 tokens, but with strips = 12, on the number of tokens.

inline constexpr std::uint32_t kMaxMatmulTokens = 65536;

/// How a multiplication runs. All members but `strips`, `split` and `warpgroup` only change its speed.
struct MatmulConfig {
  /// Strips of 16 output features that a thread block works on at a time: 1, 2 or 4, with `warpgroup` 4, 8 or 16.
  /// Fewer spread small matrices over more of the chip; more read X less often. More than 64 tokens: 8, with 128 or,
  /// where there are more, 256 tokens at a time; or, up to 128, 12.
  std::uint32_t strips = 2;
  /// Slots of the ring that weights are loaded into ahead of use, 2 to 8; see uses_stages().
  std::uint32_t stages = 4;
  /// Where strips would leave multiprocessors idle they are split along K, if that leaves each less to do: few ones
  /// among thread block clusters, otherwise the last round's among all. Needs a workspace.
  bool split = false;
  /// Programmatic dependent launch: the kernel may begin while the one before it in the stream still runs, and loads
  /// weights meanwhile. It waits for that kernel's end before it reads X or bias, touches the workspace or writes Y.
  /// The blob itself must not be written by a kernel that may still run then.
  bool dependent_launch = false;
  /// Four warps multiply together (wgmma) instead of each alone (mma.sync), while the next tiles are decoded. Runs as
  /// though there were 32 or 64 tokens, or a multiple of 128 or 256; more than 32 need it.
  bool warpgroup = false;

  /// Whether `stages` makes a difference for so many tokens.
  [[nodiscard]] constexpr bool uses_stages(std::uint32_t tokens) const { return tokens <= (strips == 12 ? 128U : 64U); }
};

/// Operands of matmul(). All addresses are device memory of the blob's device, values aligned to 2 bytes.
struct MatmulArguments {
  const std::uint16_t* x = nullptr;     ///< [tokens, K]; fastest when it and its rows are aligned to 16 bytes
  std::uint64_t x_stride = 0;           ///< values between rows of x, at least K
  std::uint16_t* y = nullptr;           ///< [tokens, N]; nothing else is written, also not the gaps between rows
  std::uint64_t y_stride = 0;           ///< values between rows of y, at least N
  const std::uint16_t* bias = nullptr;  ///< [N], added before rounding; or null
  std::uint32_t tokens = 0;             ///< 0 to kMaxMatmulTokens
  std::uint64_t matrix = 0;             ///< which matrix of the blob's batch
  void* workspace = nullptr;            ///< matmul_workspace_bytes() for MatmulConfig::split; otherwise not used
};

/// What decides whether a configuration fits.
struct MatmulProblem {
  MatrixShape shape;
  BlobLayout layout = BlobLayout::kTiled;
  std::uint32_t multiprocessors = 0;
  std::uint32_t tokens = 0;
};

/// Whether a configuration fits a problem: kInvalidArgument says why not. Looks at no device.
[[nodiscard]] Result<void> can_implement(const MatmulProblem& problem, const MatmulConfig& config);

/// Whether a configuration fits a number of tokens on this device: kInvalidArgument says why not. Looks at no memory.
[[nodiscard]] Result<void> can_implement(const DeviceBlob& weight, std::uint32_t tokens, const MatmulConfig& config);

/// Bytes of device memory, aligned to 256, that MatmulConfig::split needs: about 17 MB, the same for all weights on a
/// device. Zeroed once, before their first use; a call leaves zeros where it needs them. Calls that may run at the same
/// time need one each; consecutive calls in a stream may share one, with dependent launch too.
[[nodiscard]] std::size_t matmul_workspace_bytes(const DeviceBlob& weight) noexcept;

/// A configuration that suits the shape, found by rules, not by measuring; never with dependent_launch, which the
/// caller may set. It may need a workspace. Looks at no device. Errors: kInvalidArgument (tokens above
/// kMaxMatmulTokens, shape beyond the kernels' limits).
[[nodiscard]] Result<MatmulConfig> choose_matmul_config(const MatmulProblem& problem);

/// The same for a weight on its device.
[[nodiscard]] Result<MatmulConfig> choose_matmul_config(const DeviceBlob& weight, std::uint32_t tokens);

/// Multiplies. Asynchronous: enqueues one kernel on `stream`. Allocates nothing, never synchronises, and may be
/// captured into a CUDA graph. x, y and bias must not overlap what is written.
///
/// NaN and infinities in X, W and bias go the way of IEEE 754 products and sums; a NaN in Y is the canonical one.
/// @param stream  of the device that the blob lies on, which must be the current one; null is the default stream
/// Errors: kInvalidArgument (strides, alignment, null pointers, matrix, what can_implement() refuses); kNoDevice;
/// kCuda.
[[nodiscard]] Result<void> matmul(const DeviceBlob& weight, const MatmulArguments& arguments,
                                  const MatmulConfig& config, cudaStream_t stream);

/// Asks for `size_bytes` of the blob, from `begin_byte` on, in the device's L2 cache: for the next matrix, to be called
/// on another stream while attention or other work leaves memory idle. Ranges are clipped to the blob. Asynchronous;
/// one small kernel; may be captured. Errors: kNoDevice; kCuda.
[[nodiscard]] Result<void> prefetch_l2(const DeviceBlob& weight, std::uint64_t begin_byte, std::uint64_t size_bytes,
                                       cudaStream_t stream);

}  // namespace unweight
#pragma GCC visibility pop
