// SPDX-License-Identifier: Apache-2.0
//
// The portable tile functions, and the choice among implementations.
#include <bit>
#include <codec/checksum.hpp>
#include <codec/tile_kernels.hpp>
#include <cstdlib>
#include <cstring>
#include <format/bf16.hpp>
#include <string_view>

namespace unweight::codec {
namespace {

using namespace format;

constexpr std::uint32_t kLanes = 32;
constexpr std::uint32_t kValuesPerLane = kTileValues / kLanes;

/// Offset of a lane's value `index` (0..31) in the tile: row and column.
struct RowCol {
  std::uint8_t row, col;
};

constexpr auto kPositions = [] {
  std::array<RowCol, kTileValues> table{};
  for (std::uint32_t p = 0; p < kTileValues; ++p) {
    table[p] = {static_cast<std::uint8_t>(position_row(p)), static_cast<std::uint8_t>(position_col(p))};
  }
  return table;
}();

constexpr std::uint32_t position_in_lane(std::uint32_t lane, std::uint32_t index) {
  return (index >> 4) << 9 | lane << 4 | (index & 15);
}

std::uint64_t xxh3_scalar(const void* bytes, std::size_t size) { return XXH3_64bits(bytes, size); }

std::uint32_t encode_scalar(const std::uint16_t* values, std::size_t stride, const StripPalettes& palettes,
                            std::byte* tile, std::uint32_t* exceptions) {
  constexpr std::uint8_t kOutside = 0xff;
  std::array<std::array<std::uint8_t, 256>, kTileRows> code_of;
  for (std::uint32_t row = 0; row < kTileRows; ++row) {
    code_of[row].fill(kOutside);
    for (std::uint8_t j = 0; j < kPaletteSize; ++j) code_of[row][palettes.plain[row][j]] = j;
  }
  std::uint32_t count = 0;
  std::array<std::array<std::uint32_t, 4>, kLanes> codes{};
  for (std::uint32_t p = 0; p < kTileValues; ++p) {
    const auto [row, col] = kPositions[p];
    const std::uint16_t value = values[row * stride + col];
    tile[p] = std::byte{sign_mantissa_of(value)};
    const std::uint8_t code = code_of[row][exponent_of(value)];
    if (code == kOutside) {
      exceptions[count++] = p | std::uint32_t{exponent_of(value)} << 16;
    } else {
      const std::uint32_t index = position_index(p);
      codes[position_lane(p)][index >> 3] |= std::uint32_t{code} << 4 * (index & 7);
    }
  }
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    // The fourth word's bits fill the spare bit of every nibble of the other three.
    const auto& [word0, word1, word2, word3] = codes[lane];
    const std::array<std::uint32_t, 3> words = {word0 | (word3 & 0x11111111U) << 3, word1 | (word3 & 0x22222222U) << 2,
                                                word2 | (word3 & 0x44444444U) << 1};
    std::memcpy(tile + kCodes01Offset + lane * 8, words.data(), 8);
    std::memcpy(tile + kCodes2Offset + lane * 4, words.data() + 2, 4);
  }
  return count;
}

void decode_scalar(const std::byte* tile, const StripPalettes& palettes, std::uint16_t* values, std::size_t stride) {
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    std::array<std::uint32_t, 3> words;
    std::memcpy(words.data(), tile + kCodes01Offset + lane * 8, 8);
    std::memcpy(words.data() + 2, tile + kCodes2Offset + lane * 4, 4);
    const std::array<std::uint32_t, 4> codes = {
        words[0], words[1], words[2],
        (words[0] >> 3 & 0x11111111U) | (words[1] >> 2 & 0x22222222U) | (words[2] >> 1 & 0x44444444U)};
    for (std::uint32_t index = 0; index < kValuesPerLane; ++index) {
      const std::uint32_t p = position_in_lane(lane, index);
      const auto [row, col] = kPositions[p];
      const std::uint32_t code = codes[index >> 3] >> 4 * (index & 7) & 7;
      values[row * stride + col] = join_bf16(std::to_integer<std::uint8_t>(tile[p]), palettes.rotated[row][code]);
    }
  }
}

constexpr TileKernels kScalar{"scalar", xxh3_scalar, best_palette, encode_scalar, decode_scalar};

#if defined(UNWEIGHT_HAVE_AVX2)
bool cpu_has_avx2() noexcept { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"); }
#endif

const TileKernels& choose() noexcept {
  const char* forced = std::getenv("UNWEIGHT_CPU");
  if (forced != nullptr && std::string_view(forced) == "scalar") return kScalar;
#if defined(UNWEIGHT_HAVE_AVX2)
  if (cpu_has_avx2()) return avx2_tile_kernels();
#endif
  return kScalar;
}

}  // namespace

const TileKernels& scalar_tile_kernels() noexcept { return kScalar; }

const TileKernels& tile_kernels() noexcept {
  static const TileKernels& chosen = choose();
  return chosen;
}

std::vector<const TileKernels*> available_tile_kernels() {
  std::vector<const TileKernels*> all{&kScalar};
#if defined(UNWEIGHT_HAVE_AVX2)
  if (cpu_has_avx2()) all.push_back(&avx2_tile_kernels());
#endif
  return all;
}

}  // namespace unweight::codec
