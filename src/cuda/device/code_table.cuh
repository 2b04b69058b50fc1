// SPDX-License-Identifier: Apache-2.0
//
// What the exponents of a strip's rows are encoded as: 16 rows of 256 bytes in shared memory, made by a warp from the
// rows' palettes. Rows lie 272 bytes apart: the few exponents that a row has are near each other, and so every row's
// are in other banks.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/transcode_state.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

struct alignas(16) CodeTable {
  static constexpr std::uint32_t kRowBytes = 272;
  /// In the place of a code: the exponent is not in the row's palette.
  static constexpr std::uint32_t kOutside = 8;

  std::uint8_t bytes[format::kTileRows * kRowBytes];

  [[nodiscard]] __device__ std::uint32_t look_up(std::uint32_t row, std::uint32_t exponent) const {
    return bytes[row * kRowBytes + exponent];
  }

  /// An exponent outside of its row's palette is entered as kOutside, one inside as its code.
  __device__ void make_codes(const PaletteKey* palettes, std::uint32_t lane) {
    fill(lane, [](std::uint32_t) { return kOutside; });
    enter(palettes, lane, [](std::uint32_t code) { return code; });
  }

  /// An exponent outside is entered as the number of units that its exception takes, one inside as 0.
  __device__ void make_units(const PaletteKey* palettes, std::uint32_t exception_base, std::uint32_t lane) {
    const auto base = static_cast<std::uint8_t>(exception_base);
    fill(lane, [base](std::uint32_t exponent) {
      return format::exponent_fits_entry(static_cast<std::uint8_t>(exponent), base) ? 1U : 2U;
    });
    enter(palettes, lane, [](std::uint32_t) { return 0U; });
  }

 private:
  template <class ByteOf>
  __device__ void fill(std::uint32_t lane, const ByteOf& byte_of) {
    __syncwarp();  // nobody needs what was there
    for (std::uint32_t word = lane; word < kExponents / 4; word += kLanes) {
      std::uint32_t four = 0;
      for (std::uint32_t i = 0; i < 4; ++i) four |= byte_of(4 * word + i) << 8 * i;
      for (std::uint32_t row = 0; row < format::kTileRows; ++row) {
        *reinterpret_cast<std::uint32_t*>(bytes + row * kRowBytes + 4 * word) = four;
      }
    }
    __syncwarp();
  }

  template <class ByteOf>
  __device__ void enter(const PaletteKey* palettes, std::uint32_t lane, const ByteOf& byte_of) {
    for (std::uint32_t i = lane; i < format::kTileRows * format::kPaletteSize; i += kLanes) {
      const std::uint32_t row = i / format::kPaletteSize, code = i % format::kPaletteSize;
      bytes[row * kRowBytes + palette_exponent(palettes[row], code)] = static_cast<std::uint8_t>(byte_of(code));
    }
    __syncwarp();
  }
};

/// Four neighbouring values of a tile as encoding wants them: the inverse of join_group().
struct SplitGroup {
  std::uint32_t sign_mantissa;  ///< four bytes
  std::uint32_t rotated;        ///< four exponents, rotated

  static UNWEIGHT_HOST_DEVICE SplitGroup of(std::uint32_t first_pair, std::uint32_t second_pair) {
    constexpr std::uint32_t kTopBits = 0x80808080U;
    const std::uint32_t low = byte_permute(first_pair, second_pair, 0x6420);
    const std::uint32_t high = byte_permute(first_pair, second_pair, 0x7531);
    return {select_bits(kTopBits, high, low), select_bits(kTopBits, low, high)};
  }
};

/// The exponents of a pair of values: bytes 1 and 3.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t pair_exponents(std::uint32_t pair) { return pair << 1; }

/// The marks of a lane's exceptions, bit 3 of a nibble of its four words of codes, as a word in which bit i is that of
/// value i.
UNWEIGHT_HOST_DEVICE inline std::uint32_t exception_marks(const std::uint32_t (&codes)[4]) {
  std::uint32_t top[4];
  for (std::uint32_t w = 0; w < 4; ++w) {
    const std::uint32_t marks = codes[w] & 0x88888888U;
    const std::uint32_t pairs = (marks >> 3 | marks >> 6) & 0x03030303U;
    top[w] = pairs * ((1U << 24) + (1U << 18) + (1U << 12) + (1U << 6));  // pair b from bit 8 b to bit 24 + 2 b
  }
  return byte_permute(byte_permute(top[0], top[1], 0x0073), byte_permute(top[2], top[3], 0x0073), 0x5410);
}

/// The three words that hold a lane's four words of codes: the inverse of unpack_selectors(). Bit 3 of a code does not
/// count.
UNWEIGHT_HOST_DEVICE inline void pack_codes(const std::uint32_t (&codes)[4], std::uint32_t (&words)[3]) {
  constexpr std::uint32_t kCodeBits = 0x77777777U;
  words[0] = (codes[0] & kCodeBits) | (codes[3] & 0x11111111U) << 3;
  words[1] = (codes[1] & kCodeBits) | (codes[3] & 0x22222222U) << 2;
  words[2] = (codes[2] & kCodeBits) | (codes[3] & 0x44444444U) << 1;
}

}  // namespace unweight::device
