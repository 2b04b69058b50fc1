// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of decoding: what one lane of a warp does with its 32 of a tile's 1024 values. Plain functions of
// their arguments, for host and device alike: tests/device_decode_test.cpp proves them against the reference on the
// CPU.
//
//   a lane's part of a tile (44 bytes)      8 words of sign+mantissa, 3 words of codes
//   lane l's values                         rows l / 4 and l / 4 + 8, columns 2 (l % 4) + {0, 1} + 8 j, j = 0..7
//
// Four values, one group, cost 5 instructions once their selector is there:
//
//   rotated exponents  = PRMT(palette, selector)             a table of 8 bytes, four look-ups at once
//   high bytes         = LOP3(sign_mantissa, rotated)        bit 7 of the one, bits 0-6 of the other
//   low bytes          = LOP3(rotated, sign_mantissa)        likewise: that is why exponents are stored rotated
//   2 pairs of bf16    = PRMT(low, high) twice               interleave
//
// and the selectors of all 8 groups cost 13, so 53 instructions decode 32 values: 1.66 a value.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

inline constexpr std::uint32_t kLanes = 32;
inline constexpr std::uint32_t kAllLanes = 0xffffffffU;
inline constexpr std::uint32_t kLaneGroups = 8;  ///< groups of four values, all four of one row

/// A lane's part of a tile, as it lies in the blob.
struct LaneTile {
  std::uint32_t sign_mantissa[kLaneGroups];  ///< word g: values 4 g .. 4 g + 3
  std::uint32_t codes[3];
};

/// The 8 rotated exponents of a palette, in the byte order of the blob.
struct LanePalette {
  std::uint32_t low;   ///< entries 0 to 3
  std::uint32_t high;  ///< entries 4 to 7
};

/// A lane's palettes: even groups lie in its first row, odd groups in the row 8 below.
struct LanePalettes {
  LanePalette row[2];
};

/// A lane's 32 values. pairs[2 g], pairs[2 g + 1] hold group g: bf16 values of neighbouring columns, the lower column
/// in the lower half. This is the A operand of mma.sync.m16n8k16 for columns 16 s .. 16 s + 15 in pairs[4 s .. 4 s +
/// 3], with registers 1 and 2 exchanged.
struct LaneValues {
  std::uint32_t pairs[2 * kLaneGroups];
};

// ---- where values lie -----------------------------------------------------------------------------------------------

/// Row of a lane's group.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t group_row(std::uint32_t lane, std::uint32_t group) {
  return lane / 4 + 8 * (group & 1);
}

/// First of the two columns of a lane's pair.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t pair_col(std::uint32_t lane, std::uint32_t pair) {
  return 16 * (pair / 4) + 8 * (pair & 1) + 2 * (lane & 3);
}

/// First of the two units of an exponent plane that hold the rotated exponents of a lane's group.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t plane_unit(std::uint32_t lane, std::uint32_t group) {
  return group / 4 * (format::kEscapedTileUnits / 2) + lane * 8 + group % 4 * 2;
}

// ---- exponents ------------------------------------------------------------------------------------------------------

/// Selectors for byte_permute(): the codes of group g are the four nibbles of half g & 1 of word g / 2.
struct LaneSelectors {
  std::uint32_t words[4];
};

/// Codes have 3 bits: bit 3 of every nibble of the three stored words holds the fourth word, bit b of its codes in word
/// b. docs/FORMAT.md, section 3.
UNWEIGHT_HOST_DEVICE inline LaneSelectors unpack_selectors(const std::uint32_t (&codes)[3]) {
  constexpr std::uint32_t kCodeBits = 0x77777777U;
  return {{codes[0] & kCodeBits, codes[1] & kCodeBits, codes[2] & kCodeBits,
           (codes[0] >> 3 & 0x11111111U) | (codes[1] >> 2 & 0x22222222U) | (codes[2] >> 1 & 0x44444444U)}};
}

/// The four rotated exponents of a group, by its codes.
UNWEIGHT_HOST_DEVICE inline std::uint32_t look_up_group(const LanePalettes& palettes, const LaneSelectors& selectors,
                                                        std::uint32_t group) {
  const LanePalette& palette = palettes.row[group & 1];
  return byte_permute(palette.low, palette.high, selectors.words[group / 2] >> 16 * (group & 1));
}

// ---- values ---------------------------------------------------------------------------------------------------------

/// The bytes of four values: low ones, and high ones.
struct GroupBytes {
  std::uint32_t low, high;

  /// From four sign+mantissa bytes and four rotated exponents.
  static UNWEIGHT_HOST_DEVICE GroupBytes of(std::uint32_t sign_mantissa, std::uint32_t rotated) {
    constexpr std::uint32_t kTopBits = 0x80808080U;
    return {select_bits(kTopBits, rotated, sign_mantissa), select_bits(kTopBits, sign_mantissa, rotated)};
  }

  /// The first two values, or the other two.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t first_pair() const { return byte_permute(low, high, 0x5140); }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t second_pair() const { return byte_permute(low, high, 0x7362); }
};

/// Joins four sign+mantissa bytes with four rotated exponents to two pairs of values: format::join_bf16() four times.
UNWEIGHT_HOST_DEVICE inline void join_group(std::uint32_t sign_mantissa, std::uint32_t rotated,
                                            std::uint32_t& first_pair, std::uint32_t& second_pair) {
  const GroupBytes bytes = GroupBytes::of(sign_mantissa, rotated);
  first_pair = bytes.first_pair();
  second_pair = bytes.second_pair();
}

/// Decodes a lane's part of a tile as though the tile had no exceptions.
UNWEIGHT_HOST_DEVICE inline LaneValues decode_lane(const LaneTile& tile, const LanePalettes& palettes) {
  const LaneSelectors selectors = unpack_selectors(tile.codes);
  LaneValues values;
  UNWEIGHT_UNROLL
  for (std::uint32_t g = 0; g < kLaneGroups; ++g) {
    join_group(tile.sign_mantissa[g], look_up_group(palettes, selectors, g), values.pairs[2 * g],
               values.pairs[2 * g + 1]);
  }
  return values;
}

/// A lane's exponents of an escaped tile, whose `units` are aligned to 2 bytes only.
UNWEIGHT_HOST_DEVICE inline void load_plane(const std::uint16_t* units, std::uint32_t lane,
                                            std::uint32_t (&rotated)[kLaneGroups]) {
  UNWEIGHT_UNROLL
  for (std::uint32_t g = 0; g < kLaneGroups; ++g) {
    const std::uint16_t* pair = units + plane_unit(lane, g);
    rotated[g] = pair[0] | std::uint32_t{pair[1]} << 16;
  }
}

/// Decodes a lane's part of an escaped tile: the exponents come from the tile's plane, not from codes.
UNWEIGHT_HOST_DEVICE inline LaneValues decode_escaped_lane(const std::uint32_t (&sign_mantissa)[kLaneGroups],
                                                           const std::uint32_t (&rotated)[kLaneGroups]) {
  LaneValues values;
  UNWEIGHT_UNROLL
  for (std::uint32_t g = 0; g < kLaneGroups; ++g) {
    join_group(sign_mantissa[g], rotated[g], values.pairs[2 * g], values.pairs[2 * g + 1]);
  }
  return values;
}

}  // namespace unweight::device
