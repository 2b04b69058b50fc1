// SPDX-License-Identifier: Apache-2.0
//
// One tensor, one blob: encode, inspect, decode, slice. Host memory only; the CUDA entry points take the same bytes.
//
// A blob is the runtime form of docs/FORMAT.md: it holds a batch of matrices W[batch][rows][cols] of 16-bit bfloat16
// values without loss, at about 11.25 bits a value for trained weights, in tiles that the GPU kernels read as they are.
// Every function here is thread-safe (no global state) and works on any alignment of its byte buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/result.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight {

/// The matrices of one tensor, row-major and dense: element (b, n, k) is value number (b * rows + n) * cols + k.
/// rows are output features (N), cols are input features (K), batch is the number of experts (1 for a plain matrix).
/// Any extent may be 0 (an empty tensor); the product must be below 2^48.
struct MatrixShape {
  std::uint64_t batch = 1;
  std::uint64_t rows = 0;
  std::uint64_t cols = 0;

  friend bool operator==(const MatrixShape&, const MatrixShape&) = default;
};

/// How the payload of a blob is laid out.
enum class BlobLayout : std::uint8_t {
  kRaw = 0,    ///< row-major bfloat16, chosen when tiles would not be smaller
  kTiled = 1,  ///< 16 x 64 tiles: sign+mantissa plane, 3-bit exponent codes, exceptions
};

/// What a blob's header and tables say. All sizes in bytes.
struct BlobInfo {
  MatrixShape shape;
  BlobLayout layout = BlobLayout::kRaw;
  std::uint16_t version_major = 0;
  std::uint16_t version_minor = 0;
  std::uint64_t blob_bytes = 0;        ///< whole blob: header, tables, padding, payload
  std::uint64_t value_bytes = 0;       ///< the tensor it stands for: 2 * batch * rows * cols
  std::uint64_t tile_count = 0;        ///< 0 for a raw blob
  std::uint64_t exception_count = 0;   ///< values whose exponent is outside their row's palette, in listed tiles
  std::uint64_t escaped_tiles = 0;     ///< tiles that store a whole exponent plane instead of a list
  std::uint32_t palette_count = 0;     ///< distinct palettes of 8 exponents
  std::uint64_t content_checksum = 0;  ///< XXH3-64 of the tensor's bytes
  double bits_per_weight = 0;          ///< 8 * blob_bytes / values; 0 for an empty tensor
};

struct EncodeOptions {
  unsigned threads = 1;  ///< 0: one per logical CPU. The bytes produced never depend on it.
};

struct DecodeOptions {
  unsigned threads = 1;          ///< 0: one per logical CPU
  bool verify_checksums = true;  ///< compare the checksum of the decoded tensor with the recorded one
};

/// A part of a tensor: matrices [batch_begin, batch_end), rows [row_begin, row_end), columns [col_begin, col_end).
struct SliceRange {
  std::uint64_t batch_begin = 0, batch_end = 0;
  std::uint64_t row_begin = 0, row_end = 0;
  std::uint64_t col_begin = 0, col_end = 0;
};

/// Granularity of slices: tiles are 16 rows x 64 columns.
inline constexpr std::uint64_t kSliceRows = 16;
inline constexpr std::uint64_t kSliceCols = 64;

/// The most bytes that encode() can produce for `shape`: the size of its raw blob. Errors: kInvalidArgument (shape too
/// large), kOutOfMemory.
[[nodiscard]] Result<std::uint64_t> encode_bound(const MatrixShape& shape);

/// Encodes `values` (row-major, batch * rows * cols bfloat16 bit patterns) and returns the blob. The result is a pure
/// function of the values and the shape: no dependence on CPU, threads or earlier calls. For large tensors
/// encode_into() is quicker: this function clears encode_bound(shape) bytes first. Errors: kInvalidArgument (shape too
/// large), kShapeMismatch (values.size()), kOutOfMemory.
[[nodiscard]] Result<std::vector<std::byte>> encode(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                                    const EncodeOptions& options = {});

/// As above, into the caller's buffer of at least encode_bound(shape) bytes; returns the blob's size.
/// Errors: also kBufferTooSmall.
[[nodiscard]] Result<std::uint64_t> encode_into(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                                std::span<std::byte> out, const EncodeOptions& options = {});

/// Validates header and tables (not the checksums of the payload) and says what the blob holds. Trailing bytes after
/// the blob are allowed; blob_bytes says where it ends. Errors: 20..25, kOutOfMemory.
[[nodiscard]] Result<BlobInfo> inspect(std::span<const std::byte> blob);

/// Decodes the whole tensor into `values` (exactly batch * rows * cols entries).
/// Errors: 20..25, kShapeMismatch. After an error the contents of `values` are unspecified.
[[nodiscard]] Result<void> decode(std::span<const std::byte> blob, std::span<std::uint16_t> values,
                                  const DecodeOptions& options = {});

/// Decodes rows [row_begin, row_begin + row_count) of the tensor seen as one matrix of batch * rows rows; for streaming
/// a large tensor through a small buffer. `values` must have row_count * cols entries. Checks no checksums; the tables
/// are validated as in inspect(). Errors: 20..24, kInvalidArgument, kShapeMismatch.
[[nodiscard]] Result<void> decode_rows(std::span<const std::byte> blob, std::uint64_t row_begin,
                                       std::uint64_t row_count, std::span<std::uint16_t> values,
                                       const DecodeOptions& options = {});

/// Cuts a blob out of a blob by copying its tiles: the shards of tensor parallelism along rows (N) and columns (K), or
/// some of the experts. row_begin must be a multiple of kSliceRows and col_begin of kSliceCols; the ends too, unless
/// they are the tensor's own. No range may be empty. Verifies the source's payload checksum first. The slice has the
/// palettes of the whole, and is never larger than it. A slice of a raw blob is raw, and any range is allowed.
/// Errors: 20..25, kInvalidArgument, kOutOfMemory.
[[nodiscard]] Result<std::vector<std::byte>> slice(std::span<const std::byte> blob, const SliceRange& range);

/// Checks every checksum of the blob: header, payload, and the decoded tensor. Errors: 20..25.
[[nodiscard]] Result<BlobInfo> verify_blob(std::span<const std::byte> blob, const DecodeOptions& options = {});

}  // namespace unweight
#pragma GCC visibility pop
