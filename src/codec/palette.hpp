// SPDX-License-Identifier: Apache-2.0
//
// Which 8 exponents a row's codes stand for. Palettes are per row because rows differ in scale: measured on the
// synthetic recipe, one palette a row leaves 1.31% of the weights as exceptions, one a 64 x 64 block 2.04%, one a
// tensor 2.09%; on trained weights 1.1-1.7% against 1.2-1.9%. Rows name their palette with one byte, so this costs
// nothing.
#pragma once

#include <array>
#include <cstdint>
#include <format/layout.hpp>
#include <span>
#include <vector>

namespace unweight::codec {

/// How often each exponent occurs in a row: only those that do, ascending.
struct RowCounts {
  std::uint32_t size = 0;
  std::array<std::uint8_t, 256> exponent;
  std::array<std::uint32_t, 256> count;

  /// Replaces the contents by the non-zero entries of a histogram.
  void assign(const std::array<std::uint32_t, 256>& histogram) noexcept;
  /// Counts `count` values, below 2^32.
  void assign(const std::uint16_t* values, std::size_t count) noexcept;
};

/// Eight distinct exponents in ascending order.
using Palette = std::array<std::uint8_t, format::kPaletteSize>;

/// The 8 exponents that cover most of the row. Order of preference: higher count; nearer to the most frequent exponent
/// (the lowest such, on a tie); lower. Exponents that do not occur fill up in the same order, so that the palette of a
/// constant row is a window around its exponent and rows of equal scale share palettes.
[[nodiscard]] Palette best_palette(const RowCounts& row) noexcept;
[[nodiscard]] Palette best_palette(const std::uint16_t* values, std::size_t count) noexcept;

/// The palettes of a blob.
struct Dictionary {
  static constexpr std::uint32_t kMissing = format::kMaxPalettes;

  std::vector<Palette> palettes;       ///< ascending, without duplicates
  std::vector<std::uint32_t> numbers;  ///< of the palette that each row wants; kMissing: `palettes` does not have it
};

/// At most 256 of the palettes in `wanted`: all, or the most frequent (on a tie the lexicographically lowest).
[[nodiscard]] Dictionary make_dictionary(std::span<const Palette> wanted);

/// The palette of `dictionary` that covers most values of the row; the first such on a tie.
[[nodiscard]] std::size_t nearest_palette(const RowCounts& row, std::span<const Palette> dictionary) noexcept;

/// The base b in 0..193 for which [b + 1, b + 62] covers most of the exponents counted in `exceptions`; the lowest such
/// on a tie.
[[nodiscard]] std::uint8_t best_exception_base(const std::array<std::uint64_t, 256>& exceptions) noexcept;

}  // namespace unweight::codec
