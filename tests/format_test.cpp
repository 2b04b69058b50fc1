// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of the format: it is shared by every implementation, so it is checked against its definition.
#include <array>
#include <format/bf16.hpp>
#include <format/layout.hpp>
#include <gtest/gtest.h>

namespace unweight::format {
namespace {

TEST(Bf16, SplitsAndJoinsEveryValue) {
  for (std::uint32_t v = 0; v < 65536; ++v) {
    const auto value = static_cast<std::uint16_t>(v);
    const std::uint8_t exponent = exponent_of(value);
    ASSERT_EQ(exponent, (v >> 7) & 0xff);
    ASSERT_EQ(unrotate_exponent(rotate_exponent(exponent)), exponent);
    ASSERT_EQ(join_bf16(sign_mantissa_of(value), rotate_exponent(exponent)), value);
  }
}

TEST(Bf16, EntriesHoldEveryPositionAndExponentOfTheirRange) {
  for (std::uint32_t base = 0; base <= kMaxExceptionBase; base += 16) {
    int held = 0;
    for (std::uint32_t e = 0; e < 256; ++e) {
      const auto exponent = static_cast<std::uint8_t>(e);
      const auto b = static_cast<std::uint8_t>(base);
      if (!exponent_fits_entry(exponent, b)) continue;
      ++held;
      for (std::uint32_t p = 0; p < kTileValues; p += 93) {
        const std::uint16_t entry = make_entry(p, exponent, b);
        ASSERT_EQ(entry_position(entry), p);
        ASSERT_EQ(entry_exponent(entry, b), exponent);
        ASSERT_FALSE(entry_is_extended(entry));
        ASSERT_TRUE(entry_is_extended(make_extended_entry(p)));
        ASSERT_EQ(entry_position(make_extended_entry(p)), p);
      }
    }
    EXPECT_EQ(held, 63) << "base " << base;
  }
}

TEST(Positions, AreABijectionOfRowsAndColumns) {
  std::array<bool, kTileValues> seen{};
  for (std::uint32_t p = 0; p < kTileValues; ++p) {
    const std::uint32_t row = position_row(p), col = position_col(p);
    ASSERT_LT(row, kTileRows);
    ASSERT_LT(col, kTileCols);
    ASSERT_EQ(position_of(row, col), p);
    ASSERT_FALSE(seen[row * kTileCols + col]);
    seen[row * kTileCols + col] = true;
  }
}

// The A operand of mma.sync.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"): lane l,
// register r, half h hold row l / 4 + 8 (r & 1) and column 2 (l % 4) + 8 (r >> 1) + h. A lane's values must lie so that
// four of them in one word share a row, and two neighbours make one register.
TEST(Positions, FollowTheRegistersOfMma) {
  for (std::uint32_t p = 0; p < kTileValues; p += 2) {
    const std::uint32_t lane = position_lane(p), index = position_index(p);
    const std::uint32_t step = index / 8, reg = (index >> 2 & 1) | (index & 2);
    for (std::uint32_t half = 0; half < 2; ++half) {
      EXPECT_EQ(position_row(p + half), lane / 4 + 8 * (reg & 1));
      EXPECT_EQ(position_col(p + half), 16 * step + 2 * (lane % 4) + 8 * (reg >> 1) + half);
    }
    EXPECT_EQ(position_row(p), position_row(p & ~3U));
  }
}

TEST(Geometry, SaturatesInsteadOfOverflowing) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;
  EXPECT_EQ(saturated_values(kHuge, 2, 1), kMaxValues);
  EXPECT_EQ(saturated_values(1, kHuge, 0), kMaxValues);
  EXPECT_EQ(saturated_values(1 << 16, 1 << 16, 1 << 16), kMaxValues);
  EXPECT_EQ(saturated_values(1 << 16, 1 << 16, (1 << 16) - 1), (std::uint64_t{1} << 48) - (std::uint64_t{1} << 32));
  EXPECT_EQ(saturated_values(3, 0, 5), 0U);
}

TEST(Geometry, AlignsEverySection) {
  for (const std::uint64_t rows : {1U, 15U, 16U, 17U, 4096U}) {
    for (const std::uint64_t cols : {1U, 63U, 64U, 65U, 4096U}) {
      const TiledGeometry g = tiled_geometry(2, rows, cols, 5);
      for (const std::uint64_t offset : {g.row_palettes_offset, g.segment_starts_offset, g.tile_starts_offset,
                                         g.tiles_offset, g.exceptions_offset, g.blob_bytes(7)}) {
        EXPECT_EQ(offset % kAlignment, 0U) << rows << " x " << cols;
      }
      EXPECT_EQ(g.tiles, 2 * ((rows + 15) / 16) * ((cols + 63) / 64));
    }
  }
}

}  // namespace
}  // namespace unweight::format
