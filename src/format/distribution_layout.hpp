// SPDX-License-Identifier: Apache-2.0
//
// The bytes of distribution format v1, as constants and arithmetic. docs/DISTRIBUTION.md is normative; section numbers
// below are its sections. Everything here is usable in device code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <format/layout.hpp>

namespace unweight::format::distribution {

// ---- section 2: header ----------------------------------------------------------------------------------------------

inline constexpr char kMagic[8] = {'U', 'N', 'W', 'T', 'D', 'I', 'S', 'T'};
inline constexpr std::uint16_t kVersionMajor = 1;
inline constexpr std::uint16_t kVersionMinor = 0;

/// The 256 bytes at the start of a blob. What both formats have lies where the runtime format has it.
struct Header {
  char magic[8];
  std::uint16_t version_major;
  std::uint16_t version_minor;
  std::uint32_t header_bytes;
  std::uint64_t blob_bytes;
  std::uint8_t dtype;
  std::uint8_t layout;
  std::uint8_t class_count;
  std::uint8_t reserved0;
  std::uint16_t scale_count;
  std::uint16_t table_units;
  std::uint64_t batch;
  std::uint64_t rows;
  std::uint64_t cols;
  std::uint64_t stream_bytes;
  std::uint64_t block_starts_offset;
  std::uint64_t escape_counts_offset;
  std::uint64_t scales_offset;
  std::uint64_t tables_offset;
  std::uint64_t row_scales_offset;
  std::uint64_t stream_offset;
  std::uint64_t content_checksum;
  std::uint64_t payload_checksum;
  std::uint8_t reserved1[120];
  std::uint64_t header_checksum;
};
static_assert(sizeof(Header) == kHeaderBytes);
static_assert(offsetof(Header, header_checksum) == 248);

// ---- section 3: prefix and suffix of a value ------------------------------------------------------------------------

inline constexpr std::uint32_t kPrefixes = 1024;  ///< 8 exponent bits and the 2 leading mantissa bits
inline constexpr std::uint32_t kPrefixesPerOctave = 4;
inline constexpr std::uint32_t kSuffixBits = 6;  ///< sign and the other 5 mantissa bits

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t prefix_of(std::uint16_t bf16) { return bf16 >> 5 & (kPrefixes - 1); }

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t suffix_of(std::uint16_t bf16) { return (bf16 >> 10 & 32u) | (bf16 & 31u); }

UNWEIGHT_HOST_DEVICE constexpr std::uint16_t join(std::uint32_t prefix, std::uint32_t suffix) {
  return static_cast<std::uint16_t>((suffix & 32u) << 10 | prefix << 5 | (suffix & 31u));
}

// ---- section 4: models ----------------------------------------------------------------------------------------------

inline constexpr std::uint32_t kMaxClasses = 8;
inline constexpr std::uint32_t kMaxScales = 256;  ///< a row names its scale with one byte
inline constexpr std::uint32_t kMaxWindow = 254;  ///< ranks 0..253 are prefixes relative to the scale's base
inline constexpr std::uint32_t kZeroRank = 254;   ///< prefix 0
inline constexpr std::uint32_t kEscapeRank = 255;
inline constexpr std::uint32_t kRanks = 256;
inline constexpr std::uint32_t kFrequencyBits = 12;
inline constexpr std::uint32_t kFrequencyTotal = 1u << kFrequencyBits;
inline constexpr std::uint32_t kTableHeadUnits = 3;  ///< before a table's frequencies

/// A scale's 16 bits: base in bits 0..9, class in bits 10..12.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t scale_base(std::uint16_t scale) { return scale & (kPrefixes - 1); }
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t scale_class(std::uint16_t scale) { return scale >> 10; }

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t prefix_of_rank(std::uint32_t base, std::uint32_t rank) {
  return rank < kMaxWindow ? (base + rank) & (kPrefixes - 1) : 0;
}

// ---- section 5: blocks ----------------------------------------------------------------------------------------------

inline constexpr std::uint32_t kLanes = 32;
inline constexpr std::uint32_t kMaxBlockCols = 1024;
inline constexpr std::uint32_t kMaxBlockValues = kTileRows * kMaxBlockCols;
inline constexpr std::uint32_t kStepSuffixBytes = kLanes * kSuffixBits / 8;  // 24
inline constexpr std::uint32_t kStateSteps = 3;  ///< the last steps of a block, whose suffixes the states carry
inline constexpr std::uint32_t kStateSuffixBits = kStateSteps * kSuffixBits;
inline constexpr std::uint32_t kFinalState = 1u << kStateSuffixBits;  ///< and suffixes below: the decoder's last state
inline constexpr std::uint32_t kStateLow = 1u << 16;                  ///< states below take another word

inline constexpr std::uint32_t kMaskBytes = 4;                     ///< lanes whose state has a fourth byte
inline constexpr std::uint32_t kFixedStateBytes = 4 + 3 * kLanes;  ///< mask, low halves, third bytes: 100
inline constexpr std::uint32_t kMaxStateBytes = 4 + 4 * kLanes;
inline constexpr std::uint32_t kEscapeBytes = 4;
inline constexpr std::uint32_t kStartUnit = 4;  ///< bytes: blocks begin at multiples of it

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t steps_per_row(std::uint32_t cols) { return (cols + kLanes - 1) / kLanes; }

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t suffix_plane_bytes(std::uint32_t steps) {
  return steps > kStateSteps ? (steps - kStateSteps) * kStepSuffixBytes : 0;
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

/// How a shape is cut into blocks: a row group of whole strips, and a part of its columns.
struct Blocks {
  std::uint32_t group_rows = 0;  ///< 16, or more of them where rows are short
  std::uint32_t block_cols = 0;  ///< a multiple of 64
  std::uint64_t groups = 0;      ///< per matrix: ceil(rows / group_rows)
  std::uint64_t col_blocks = 0;  ///< ceil(cols / 1024): parts of nearly equal width
  std::uint64_t count = 0;       ///< batch * groups * col_blocks
};

/// Requires batch * rows * cols < kMaxValues and non-zero extents.
UNWEIGHT_HOST_DEVICE constexpr Blocks cut_blocks(std::uint64_t batch, std::uint64_t rows, std::uint64_t cols) {
  Blocks b;
  b.col_blocks = ceil_div(cols, kMaxBlockCols);
  b.block_cols = static_cast<std::uint32_t>(align_up(ceil_div(cols, b.col_blocks), kTileCols));
  b.group_rows = b.col_blocks == 1 ? kTileRows * (kMaxBlockCols / b.block_cols) : kTileRows;
  b.groups = ceil_div(rows, b.group_rows);
  b.count = batch * b.groups * b.col_blocks;
  return b;
}

/// Where a block lies in its tensor.
struct BlockPlace {
  std::uint64_t row = 0;   ///< first row in the tensor seen as one matrix of batch * rows rows
  std::uint64_t col = 0;   ///< first column
  std::uint32_t rows = 0;  ///< 1 to group_rows
  std::uint32_t cols = 0;  ///< 1 to block_cols

  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t steps() const { return rows * steps_per_row(cols); }
};

/// Where a block of a tensor of this shape lies.
UNWEIGHT_HOST_DEVICE constexpr BlockPlace place_block(const Blocks& blocks, std::uint64_t rows, std::uint64_t cols,
                                                      std::uint64_t block) {
  const std::uint64_t part = block % blocks.col_blocks, group = block / blocks.col_blocks;
  const std::uint64_t row = group % blocks.groups * blocks.group_rows;
  const std::uint64_t rows_left = rows - row, cols_left = cols - part * blocks.block_cols;
  BlockPlace place;
  place.row = group / blocks.groups * rows + row;
  place.col = part * blocks.block_cols;
  place.rows = static_cast<std::uint32_t>(rows_left < blocks.group_rows ? rows_left : blocks.group_rows);
  place.cols = static_cast<std::uint32_t>(cols_left < blocks.block_cols ? cols_left : blocks.block_cols);
  return place;
}

/// Section offsets that follow from shape and counts; the header repeats them and must agree.
struct Sections {
  std::uint64_t block_starts_offset = 0;
  std::uint64_t escape_counts_offset = 0;
  std::uint64_t scales_offset = 0;
  std::uint64_t tables_offset = 0;
  std::uint64_t row_scales_offset = 0;
  std::uint64_t stream_offset = 0;

  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint64_t blob_bytes(std::uint64_t stream_bytes) const {
    return align_up(stream_offset + stream_bytes, kAlignment);
  }
};

UNWEIGHT_HOST_DEVICE constexpr Sections place_sections(const Blocks& blocks, std::uint64_t total_rows,
                                                       std::uint32_t scale_count, std::uint32_t table_units) {
  constexpr std::uint64_t kStreamAlignment = 16;
  Sections s;
  s.block_starts_offset = kHeaderBytes;
  s.escape_counts_offset = s.block_starts_offset + (blocks.count + 1) * sizeof(std::uint32_t);
  s.scales_offset = s.escape_counts_offset + blocks.count * sizeof(std::uint16_t);
  s.tables_offset = s.scales_offset + std::uint64_t{scale_count} * sizeof(std::uint16_t);
  s.row_scales_offset = s.tables_offset + std::uint64_t{table_units} * sizeof(std::uint16_t);
  s.stream_offset = align_up(s.row_scales_offset + total_rows, kStreamAlignment);
  return s;
}

}  // namespace unweight::format::distribution
