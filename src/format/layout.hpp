// SPDX-License-Identifier: Apache-2.0
//
// The bytes of runtime format v1, as constants and arithmetic. docs/FORMAT.md is normative; section numbers below are
// its sections. Everything here is usable in device code, so that the GPU kernels and the CPU share one definition.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define UNWEIGHT_HOST_DEVICE __host__ __device__
#else
#define UNWEIGHT_HOST_DEVICE
#endif

namespace unweight::format {

// ---- section 2: header ----------------------------------------------------------------------------------------------

inline constexpr char kMagic[8] = {'U', 'N', 'W', 'E', 'I', 'G', 'H', 'T'};
inline constexpr std::uint16_t kVersionMajor = 1;
inline constexpr std::uint16_t kVersionMinor = 0;
inline constexpr std::uint32_t kHeaderBytes = 256;
inline constexpr std::uint64_t kAlignment = 128;  ///< of every section and of the blob's size
inline constexpr std::uint8_t kDtypeBf16 = 1;
inline constexpr std::uint64_t kMaxValues = std::uint64_t{1} << 48;

/// The 256 bytes at the start of a blob; little-endian, no implicit padding. Copied in and out with memcpy.
struct Header {
  char magic[8];
  std::uint16_t version_major;
  std::uint16_t version_minor;
  std::uint32_t header_bytes;
  std::uint64_t blob_bytes;
  std::uint8_t dtype;
  std::uint8_t layout;
  std::uint8_t exception_base;
  std::uint8_t reserved0;
  std::uint32_t palette_count;
  std::uint64_t batch;
  std::uint64_t rows;
  std::uint64_t cols;
  std::uint64_t exception_units;
  std::uint64_t tiles_offset;
  std::uint64_t segment_starts_offset;
  std::uint64_t tile_starts_offset;
  std::uint64_t row_palettes_offset;
  std::uint64_t palettes_offset;
  std::uint64_t exceptions_offset;
  std::uint64_t content_checksum;
  std::uint64_t payload_checksum;
  std::uint8_t reserved1[120];
  std::uint64_t header_checksum;
};
static_assert(sizeof(Header) == kHeaderBytes);
static_assert(offsetof(Header, header_checksum) == 248);

// ---- section 3: tiles -----------------------------------------------------------------------------------------------

inline constexpr std::uint32_t kTileRows = 16;
inline constexpr std::uint32_t kTileCols = 64;
inline constexpr std::uint32_t kTileValues = kTileRows * kTileCols;  // 1024
inline constexpr std::uint32_t kPaletteSize = 8;                     // exponents a row's 3-bit codes choose from
inline constexpr std::uint32_t kMaxPalettes = 256;                   // a row names its palette with one byte

inline constexpr std::uint32_t kSignMantissaBytes = kTileValues;      // one byte a value
inline constexpr std::uint32_t kCodes01Offset = kSignMantissaBytes;   // 32 lanes x 8 bytes: code words 0 and 1
inline constexpr std::uint32_t kCodes2Offset = kCodes01Offset + 256;  // 32 lanes x 4 bytes: code word 2
inline constexpr std::uint32_t kTileBytes = kCodes2Offset + 128;      // 1408 = 11 bits a value
static_assert(kTileBytes == 1408 && kTileBytes % kAlignment == 0);

// ---- section 4: exceptions ------------------------------------------------------------------------------------------

inline constexpr std::uint32_t kTilesPerSegment = 64;
/// A list this long is not a list: the tile's 1024 exponent bytes stand in its place, two a unit.
inline constexpr std::uint32_t kEscapedTileUnits = kTileValues / 2;
inline constexpr std::uint32_t kExtendedIndex = 63;  ///< of the 6-bit index: the exponent stands in the next unit
/// Indices 1..62 stand for exponents exception_base + 1..62; index 0 for exponent 0.
inline constexpr std::uint32_t kExceptionWindow = kExtendedIndex - 1;
inline constexpr std::uint8_t kMaxExceptionBase = 255 - kExceptionWindow;  // 193

// ---- position of a value in its tile --------------------------------------------------------------------------------
// A position p in [0, 1024) is a byte of the sign+mantissa plane: half (p >> 9), lane (p >> 4) & 31, byte p & 15. Lane
// and byte follow the registers of mma.sync.m16n8k16's A operand, so that a lane reads its own values as two 16-byte
// vectors, and four consecutive bytes belong to one row, so that one byte permute looks four exponents up.

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t position_lane(std::uint32_t p) { return (p >> 4) & 31; }

/// The value's number within its lane, 0..31.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t position_index(std::uint32_t p) { return ((p >> 9) << 4) | (p & 15); }

/// Row of the tile, 0..15.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t position_row(std::uint32_t p) {
  return (position_lane(p) >> 2) + 8 * ((position_index(p) >> 2) & 1);
}

/// Column of the tile, 0..63.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t position_col(std::uint32_t p) {
  const std::uint32_t i = position_index(p);
  return 16 * (i >> 3) + 2 * (position_lane(p) & 3) + 8 * ((i >> 1) & 1) + (i & 1);
}

/// Inverse of (position_row, position_col).
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t position_of(std::uint32_t row, std::uint32_t col) {
  const std::uint32_t lane = (row & 7) * 4 + ((col >> 1) & 3);
  const std::uint32_t index = ((col >> 4) << 3) | ((row >> 3) << 2) | (((col >> 3) & 1) << 1) | (col & 1);
  return ((index >> 4) << 9) | (lane << 4) | (index & 15);
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

UNWEIGHT_HOST_DEVICE constexpr std::uint64_t ceil_div(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0); }
UNWEIGHT_HOST_DEVICE constexpr std::uint64_t align_up(std::uint64_t a, std::uint64_t b) { return ceil_div(a, b) * b; }

/// batch * rows * cols; kMaxValues when that, or one of the extents, is kMaxValues or more.
UNWEIGHT_HOST_DEVICE constexpr std::uint64_t saturated_values(std::uint64_t batch, std::uint64_t rows,
                                                              std::uint64_t cols) {
  if (batch >= kMaxValues || rows >= kMaxValues || cols >= kMaxValues) return kMaxValues;
  if (batch == 0 || rows == 0 || cols == 0) return 0;
  if (batch > (kMaxValues - 1) / rows) return kMaxValues;
  if (batch * rows > (kMaxValues - 1) / cols) return kMaxValues;
  return batch * rows * cols;
}

/// Tile counts and section offsets that follow from a shape; the header repeats the offsets and must agree.
struct TiledGeometry {
  std::uint64_t strips = 0;           ///< row blocks of 16 per matrix: ceil(rows / 16)
  std::uint64_t tiles_per_strip = 0;  ///< ceil(cols / 64)
  std::uint64_t tiles = 0;            ///< batch * strips * tiles_per_strip
  std::uint64_t padded_rows = 0;      ///< batch * strips * 16: entries of the row palette table
  std::uint64_t segments = 0;         ///< tiles / 64 + 1: entries of the segment table, the last ends the stream
  std::uint64_t tiles_offset = 0;
  std::uint64_t segment_starts_offset = 0;
  std::uint64_t tile_starts_offset = 0;
  std::uint64_t row_palettes_offset = 0;
  std::uint64_t palettes_offset = 0;
  std::uint64_t exceptions_offset = 0;

  /// Whole blob with `exception_units` 16-bit units.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint64_t blob_bytes(std::uint64_t exception_units) const {
    return align_up(exceptions_offset + 2 * exception_units, kAlignment);
  }
};

/// Requires batch * rows * cols < kMaxValues and non-zero extents.
UNWEIGHT_HOST_DEVICE constexpr TiledGeometry tiled_geometry(std::uint64_t batch, std::uint64_t rows, std::uint64_t cols,
                                                            std::uint32_t palette_count) {
  TiledGeometry g;
  g.strips = ceil_div(rows, kTileRows);
  g.tiles_per_strip = ceil_div(cols, kTileCols);
  g.tiles = batch * g.strips * g.tiles_per_strip;
  g.padded_rows = batch * g.strips * kTileRows;
  g.segments = g.tiles / kTilesPerSegment + 1;
  g.tiles_offset = kHeaderBytes;
  g.segment_starts_offset = g.tiles_offset + g.tiles * kTileBytes;
  g.tile_starts_offset = g.segment_starts_offset + align_up(g.segments * sizeof(std::uint32_t), kAlignment);
  g.row_palettes_offset = g.tile_starts_offset + align_up((g.tiles + 1) * sizeof(std::uint16_t), kAlignment);
  g.palettes_offset = g.row_palettes_offset + align_up(g.padded_rows, kAlignment);
  g.exceptions_offset = g.palettes_offset + align_up(std::uint64_t{palette_count} * kPaletteSize, kAlignment);
  return g;
}

/// Whole raw blob: header and the values as they are.
UNWEIGHT_HOST_DEVICE constexpr std::uint64_t raw_blob_bytes(std::uint64_t values) {
  return kHeaderBytes + align_up(2 * values, kAlignment);
}

}  // namespace unweight::format
