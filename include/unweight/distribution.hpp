// SPDX-License-Identifier: Apache-2.0
//
// The distribution form: one tensor, one blob, as in blob.hpp, but entropy-coded for storage and transfer. Trained
// weights take about 10.5 bits a value, where the runtime form takes about 11.25. No kernel multiplies with it: it is
// decoded, or transcoded to the runtime form, when it is loaded; on a GPU by what distribution_cuda.hpp has.
//
// docs/DISTRIBUTION.md describes the bytes. A blob is cut into independent blocks of at most 16 rows x 1024 columns (or
// more and shorter rows) with an index, so that threads decode in parallel and a part can be read alone. Every function
// here is thread-safe (no global state) and works on any alignment of its byte buffers. Host memory only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>
#include <vector>

#pragma GCC visibility push(default)  // the library hides all other symbols
namespace unweight::distribution {

/// How the payload of a blob is laid out.
enum class Layout : std::uint8_t {
  kRaw = 0,    ///< row-major bfloat16, chosen when coding would not make it smaller
  kCoded = 1,  ///< blocks of interleaved rANS streams
};

/// What a blob's header and tables say. All sizes in bytes.
struct Info {
  MatrixShape shape;
  Layout layout = Layout::kRaw;
  std::uint16_t version_major = 0;
  std::uint16_t version_minor = 0;
  std::uint64_t blob_bytes = 0;        ///< whole blob: header, tables, padding, payload
  std::uint64_t value_bytes = 0;       ///< the tensor it stands for: 2 * batch * rows * cols
  std::uint64_t block_count = 0;       ///< 0 for a raw blob
  std::uint64_t escape_count = 0;      ///< values that no symbol stands for
  std::uint32_t class_count = 0;       ///< tables of frequencies
  std::uint32_t scale_count = 0;       ///< different scales of rows
  std::uint64_t content_checksum = 0;  ///< of the tensor's bytes; the same as in the runtime form
  double bits_per_weight = 0;          ///< 8 * blob_bytes / values; 0 for an empty tensor
};

/// Whether the bytes begin like a blob of this form; says nothing about the rest.
[[nodiscard]] bool is_blob(std::span<const std::byte> bytes) noexcept;

/// Encodes `values` (row-major, batch * rows * cols bfloat16 bit patterns) into the caller's buffer of at least
/// unweight::encode_bound(shape) bytes, which bounds this form too; returns the blob's size. The result is a pure
/// function of the values and the shape: no dependence on CPU, threads or earlier calls. Errors: kInvalidArgument
/// (shape too large), kShapeMismatch (values.size()), kBufferTooSmall, kOutOfMemory.
[[nodiscard]] Result<std::uint64_t> encode_into(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                                std::span<std::byte> out, const EncodeOptions& options = {});

/// As above, returning the blob. For large tensors encode_into() is quicker: this function clears the bound's bytes
/// first. Errors: kInvalidArgument (shape too large), kShapeMismatch (values.size()), kOutOfMemory.
[[nodiscard]] Result<std::vector<std::byte>> encode(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                                    const EncodeOptions& options = {});

/// Validates header and tables (not the checksums of the payload) and says what the blob holds. Trailing bytes after
/// the blob are allowed; blob_bytes says where it ends. Errors: 20..25, kOutOfMemory.
[[nodiscard]] Result<Info> inspect(std::span<const std::byte> blob);

/// Decodes the whole tensor into `values` (exactly batch * rows * cols entries).
/// Errors: 20..25, kShapeMismatch. After an error the contents of `values` are unspecified.
[[nodiscard]] Result<void> decode(std::span<const std::byte> blob, std::span<std::uint16_t> values,
                                  const DecodeOptions& options = {});

/// Decodes rows [row_begin, row_begin + row_count) of the tensor seen as one matrix of batch * rows rows; for streaming
/// a large tensor through a small buffer. Blocks are decoded whole: ranges of whole row groups (16 rows, or more where
/// rows have at most 512 columns) waste nothing. `values` must have row_count * cols entries. Checks no checksums; the
/// tables and the blocks it reads are validated. Errors: 20..25, kInvalidArgument, kShapeMismatch.
[[nodiscard]] Result<void> decode_rows(std::span<const std::byte> blob, std::uint64_t row_begin,
                                       std::uint64_t row_count, std::span<std::uint16_t> values,
                                       const DecodeOptions& options = {});

/// Checks every checksum of the blob: header, payload, and the decoded tensor. Errors: 20..25.
[[nodiscard]] Result<Info> verify_blob(std::span<const std::byte> blob, const DecodeOptions& options = {});

/// Turns a blob of this form into the runtime form: the same bytes that unweight::encode() makes of the values. Takes
/// memory for the decoded tensor. Verifies the checksum of the decoded tensor unless told otherwise. Errors: 20..25,
/// kOutOfMemory.
[[nodiscard]] Result<std::vector<std::byte>> to_runtime(std::span<const std::byte> blob,
                                                        const DecodeOptions& options = {});

/// Turns a blob of the runtime form into this one: the same bytes that encode() makes of the values. As above.
[[nodiscard]] Result<std::vector<std::byte>> from_runtime(std::span<const std::byte> blob,
                                                          const DecodeOptions& options = {});

}  // namespace unweight::distribution
#pragma GCC visibility pop
