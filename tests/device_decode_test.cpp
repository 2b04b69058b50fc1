// SPDX-License-Identifier: Apache-2.0
//
// The device's decode arithmetic, run on the CPU: the same functions that the kernels call, with 32 lanes taking turns.
// What only a device can show (loads, votes, barriers) is in gpu/decode_test.cu.
#include "support/tensors.hpp"
#include <algorithm>
#include <array>
#include <codec/open.hpp>
#include <codec/reference.hpp>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/tile_staging.cuh>
#include <format/bf16.hpp>
#include <gtest/gtest.h>
#include <set>
#include <vector>

namespace unweight {
namespace {

using device::kLaneGroups;
using device::kLanes;
using format::load;

/// A warp's staging memory.
using Staging = std::array<std::uint16_t, format::kTileValues>;

/// What a list says, one step of 32 lanes after the other, in the terms of the kernels.
template <class Apply>
void read_list(const std::vector<std::uint16_t>& units, std::uint8_t exception_base, const Apply& apply) {
  for (std::uint32_t done = 0; done < units.size();) {
    const auto left = static_cast<std::uint32_t>(units.size()) - done;
    std::uint32_t extended = 0;
    for (std::uint32_t lane = 0; lane < std::min(left, kLanes); ++lane) {
      extended |= std::uint32_t{format::entry_is_extended(units[done + lane])} << lane;
    }
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      if (!device::begins_entry(extended, lane, left)) continue;
      const std::uint16_t unit = units[done + lane];
      apply(unit, format::entry_is_extended(unit) ? static_cast<std::uint8_t>(units[done + lane + 1])
                                                  : format::entry_exponent(unit, exception_base));
    }
    done += device::units_read(extended);
  }
}

void stage(const device::LaneValues& values, std::uint32_t lane, Staging& staging) {
  for (std::uint32_t pair = 0; pair < 2 * kLaneGroups; ++pair) {
    const std::uint32_t at = device::staged_pair(lane, pair);
    staging.at(at) = static_cast<std::uint16_t>(values.pairs[pair]);
    staging.at(at + 1) = static_cast<std::uint16_t>(values.pairs[pair] >> 16);
  }
}

Staging decode_tile(const format::BlobView& blob, std::uint64_t tile) {
  const std::byte* at = blob.tile(tile);
  std::vector<std::uint16_t> units(blob.exception_units(tile));
  for (std::size_t u = 0; u < units.size(); ++u) {
    units[u] = load<std::uint16_t>(blob.exception_unit(blob.exception_begin(tile) + u));
  }
  Staging staging;
  staging.fill(0xa5a5);
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    device::LaneTile part{};
    std::array<std::uint32_t, 4> half;
    for (std::uint32_t h = 0; h < 2; ++h) {
      std::memcpy(half.data(), at + h * 512 + lane * 16, 16);
      std::copy(half.begin(), half.end(), part.sign_mantissa + h * 4);
    }
    part.codes[0] = load<std::uint32_t>(at + format::kCodes01Offset + lane * 8);
    part.codes[1] = load<std::uint32_t>(at + format::kCodes01Offset + lane * 8 + 4);
    part.codes[2] = load<std::uint32_t>(at + format::kCodes2Offset + lane * 4);
    if (units.size() == format::kEscapedTileUnits) {
      std::uint32_t rotated[kLaneGroups];
      for (std::uint32_t g = 0; g < kLaneGroups; ++g) {
        const std::uint32_t u = device::plane_unit(lane, g);
        rotated[g] = units[u] | std::uint32_t{units[u + 1]} << 16;
      }
      stage(device::decode_escaped_lane(part.sign_mantissa, rotated), lane, staging);
      continue;
    }
    device::LanePalettes palettes{};
    for (std::uint32_t g = 0; g < 2; ++g) {
      const std::uint64_t strip = tile / blob.geometry().tiles_per_strip;
      const std::byte* palette = blob.palette(blob.row_palette(strip * format::kTileRows + device::group_row(lane, g)));
      palettes.row[g] = {load<std::uint32_t>(palette), load<std::uint32_t>(palette + 4)};
    }
    stage(device::decode_lane(part, palettes), lane, staging);
  }
  if (units.size() != format::kEscapedTileUnits) {
    read_list(units, blob.header().exception_base, [&](std::uint16_t entry, std::uint8_t exponent) {
      std::uint16_t& value = staging.at(device::staged_entry(entry));
      value = device::with_exponent(value, exponent);
    });
  }
  return staging;
}

/// Every tile of a tiled blob, as the kernel writes them out.
std::vector<std::uint16_t> decode_tiles(const format::BlobView& blob) {
  const format::Header& h = blob.header();
  const format::TiledGeometry& g = blob.geometry();
  std::vector<std::uint16_t> values(h.batch * h.rows * h.cols);
  for (std::uint64_t tile = 0; tile < g.tiles; ++tile) {
    const Staging staging = decode_tile(blob, tile);
    const std::uint64_t strip = tile / g.tiles_per_strip, matrix = strip / g.strips;
    const std::uint64_t row0 = strip % g.strips * format::kTileRows;
    const std::uint64_t col0 = tile % g.tiles_per_strip * format::kTileCols;
    for (std::uint32_t r = 0; r < format::kTileRows && row0 + r < h.rows; ++r) {
      for (std::uint32_t c = 0; c < format::kTileCols && col0 + c < h.cols; ++c) {
        values.at((matrix * h.rows + row0 + r) * h.cols + col0 + c) = staging.at(device::staged_value(r, c));
      }
    }
  }
  return values;
}

TEST(DeviceDecode, BytePermuteSelectsBytes) {
  EXPECT_EQ(device::byte_permute(0x33221100U, 0x77665544U, 0x3210), 0x33221100U);
  EXPECT_EQ(device::byte_permute(0x33221100U, 0x77665544U, 0x7654), 0x77665544U);
  EXPECT_EQ(device::byte_permute(0x33221100U, 0x77665544U, 0x0527), 0x00552277U);
  EXPECT_EQ(device::byte_permute(0x33221100U, 0x77665544U, 0xffff0527U), 0x00552277U) << "upper half must not count";
}

TEST(DeviceDecode, SelectsBits) {
  EXPECT_EQ(device::select_bits(0xffff0000U, 0x12345678U, 0x9abcdef0U), 0x1234def0U);
  EXPECT_EQ(device::select_bits(0x80808080U, 0xffffffffU, 0), 0x80808080U);
  EXPECT_EQ(device::select_bits(0x80808080U, 0, 0xffffffffU), 0x7f7f7f7fU);
  test::Random random(9);
  for (int round = 0; round < 1000; ++round) {
    const auto a = static_cast<std::uint32_t>(random.next()), b = static_cast<std::uint32_t>(random.next());
    const auto c = static_cast<std::uint32_t>(random.next());
    ASSERT_EQ(device::select_bits(a, b, c), (a & b) | (~a & c));
    ASSERT_EQ((device::logic3<0x96>(a, b, c)), a ^ b ^ c);
    ASSERT_EQ((device::logic3<0xe8>(a, b, c)), (a & b) | (a & c) | (b & c));
  }
}

TEST(DeviceDecode, JoinsEveryValue) {
  for (std::uint32_t v = 0; v < 65536; v += 4) {
    std::uint32_t sign_mantissa = 0, rotated = 0;
    for (std::uint32_t i = 0; i < 4; ++i) {
      const auto value = static_cast<std::uint16_t>(v + i);
      sign_mantissa |= std::uint32_t{format::sign_mantissa_of(value)} << 8 * i;
      rotated |= std::uint32_t{format::rotate_exponent(format::exponent_of(value))} << 8 * i;
    }
    std::uint32_t first = 0, second = 0;
    device::join_group(sign_mantissa, rotated, first, second);
    ASSERT_EQ(first, v | (v + 1) << 16);
    ASSERT_EQ(second, (v + 2) | (v + 3) << 16);
  }
}

TEST(DeviceDecode, SetsEveryExponentOfEveryValue) {
  for (std::uint32_t v = 0; v < 65536; ++v) {
    const std::uint16_t value = device::with_exponent(static_cast<std::uint16_t>(~v & 0x7f80) | (v & 0x807f),
                                                      format::exponent_of(static_cast<std::uint16_t>(v)));
    ASSERT_EQ(value, v);
  }
}

TEST(DeviceDecode, LanesAndStagingCoverTheTile) {
  std::set<std::uint32_t> staged;
  for (std::uint32_t p = 0; p < format::kTileValues; ++p) {
    const std::uint32_t lane = format::position_lane(p), index = format::position_index(p);
    ASSERT_EQ(device::group_row(lane, index / 4), format::position_row(p));
    ASSERT_EQ(device::pair_col(lane, index / 2) + index % 2, format::position_col(p));
    const std::uint32_t at = device::staged_pair(lane, index / 2) + index % 2;
    ASSERT_EQ(at, device::staged_value(format::position_row(p), format::position_col(p)));
    ASSERT_EQ(at, device::staged_entry(static_cast<std::uint16_t>(p | 0xfc00)));
    staged.insert(at);
  }
  EXPECT_EQ(staged.size(), format::kTileValues);
  EXPECT_EQ(*staged.rbegin(), format::kTileValues - 1);
}

/// 32 banks of 4 bytes: a warp's 4-byte stores, and each 8 lanes' 16-byte loads, must use every bank once.
TEST(DeviceDecode, StagingHasNoBankConflicts) {
  for (std::uint32_t pair = 0; pair < 2 * kLaneGroups; ++pair) {
    std::set<std::uint32_t> banks;
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      ASSERT_EQ(device::staged_pair(lane, pair) % 2, 0U);
      banks.insert(device::staged_pair(lane, pair) / 2 % 32);
    }
    EXPECT_EQ(banks.size(), 32U) << "pair " << pair;
  }
  for (std::uint32_t row = 0; row < format::kTileRows; ++row) {
    std::set<std::uint32_t> chunks;
    for (std::uint32_t chunk = 0; chunk < device::kRowChunks; ++chunk) {
      ASSERT_EQ(device::staged_chunk(row, chunk) % device::kChunkValues, 0U);
      chunks.insert(device::staged_chunk(row, chunk) / device::kChunkValues % device::kRowChunks);
    }
    EXPECT_EQ(chunks.size(), device::kRowChunks) << "row " << row;
  }
}

/// Lists of every length, with extended entries at all distances from the steps' ends.
TEST(DeviceDecode, ReadsListsOfEveryLength) {
  test::Random random(7);
  for (std::uint32_t length = 0; length < format::kEscapedTileUnits; ++length) {
    for (std::uint32_t extended_in_8 = 0; extended_in_8 <= 8; ++extended_in_8) {
      constexpr std::uint8_t kBase = 100;
      std::vector<std::uint16_t> units;
      std::vector<std::pair<std::uint32_t, std::uint8_t>> expected, read;
      for (std::uint32_t position = 0; units.size() < length; ++position) {
        if (random.below(8) < extended_in_8) {
          // The last unit may be an extended entry's first half, which stands for nothing.
          units.push_back(format::make_extended_entry(position));
          if (units.size() == length) break;
          units.push_back(static_cast<std::uint16_t>(random.below(256)));
          expected.emplace_back(position, static_cast<std::uint8_t>(units.back()));
        } else {
          const std::uint64_t index = random.below(format::kExceptionWindow + 1);
          const auto exponent = static_cast<std::uint8_t>(index == 0 ? 0 : kBase + index);
          units.push_back(format::make_entry(position, exponent, kBase));
          expected.emplace_back(position, exponent);
        }
      }
      read_list(units, kBase, [&](std::uint16_t entry, std::uint8_t exponent) {
        read.emplace_back(format::entry_position(entry), exponent);
      });
      ASSERT_EQ(read, expected) << "length " << length << ", " << extended_in_8 << " of 8 entries extended";
    }
  }
}

/// Any sequence of units ends, and names only positions of the tile.
TEST(DeviceDecode, ReadsAnyUnits) {
  test::Random random(8);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::uint16_t> units(random.below(format::kEscapedTileUnits));
    const std::uint64_t mark = random.below(3) == 0 ? 0xfc00 : 0;
    for (std::uint16_t& unit : units) unit = static_cast<std::uint16_t>(random.next() | mark);
    std::size_t entries = 0;
    read_list(units, 0, [&](std::uint16_t entry, std::uint8_t) {
      ASSERT_LT(device::staged_entry(entry), format::kTileValues);
      ++entries;
    });
    ASSERT_LE(entries, units.size());
  }
}

TEST(DeviceDecode, EqualsTheReference) {
  const std::array<MatrixShape, 7> shapes = {MatrixShape{1, 16, 64},  {1, 47, 500}, {1, 31, 640}, {3, 30, 600},
                                             MatrixShape{1, 64, 512}, {2, 48, 711}, {1, 80, 1111}};
  std::size_t tiled = 0;
  for (const MatrixShape& shape : shapes) {
    for (const test::Filling filling : test::kAllFillings) {
      const auto values = test::make_tensor(shape, filling, 1);
      const auto bytes = codec::reference_encode(values, shape);
      const auto blob = codec::open_blob(bytes);
      ASSERT_TRUE(blob) << blob.error().message;
      if (blob->layout() != format::Layout::kTiled) continue;
      ++tiled;
      const auto decoded = decode_tiles(*blob);
      ASSERT_EQ(decoded, codec::reference_decode(bytes)) << test::name_of(filling);
      ASSERT_EQ(decoded, values) << test::name_of(filling);
    }
  }
  EXPECT_GE(tiled, 40U);
}

/// All 65,536 values among trained ones, and strips of random bits, which become exponent planes.
TEST(DeviceDecode, DecodesEveryValueInTiles) {
  const MatrixShape shape{1, 1040, 1024};
  auto values = test::make_tensor(shape, test::Filling::kTrained, 3);
  for (std::uint32_t v = 0; v < 65536; ++v) values[v * 16 + v % 16] = static_cast<std::uint16_t>(v * 40503);
  for (std::size_t i = 1024 * 1024; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i * 25793);
  std::set<std::uint16_t> present(values.begin(), values.end());
  ASSERT_EQ(present.size(), 65536U);
  const auto bytes = codec::reference_encode(values, shape);
  const auto blob = codec::open_blob(bytes);
  ASSERT_TRUE(blob) << blob.error().message;
  ASSERT_EQ(blob->layout(), format::Layout::kTiled);
  std::size_t escaped = 0;
  for (std::uint64_t tile = 0; tile < blob->geometry().tiles; ++tile) {
    escaped += blob->exception_units(tile) == format::kEscapedTileUnits;
  }
  EXPECT_EQ(escaped, 16U);
  EXPECT_EQ(decode_tiles(*blob), values);
}

}  // namespace
}  // namespace unweight
