// SPDX-License-Identifier: Apache-2.0
//
// Which 8 exponents a row's codes stand for. Palettes are per row because rows differ in scale: measured on the
// synthetic recipe, one palette a row leaves 1.31% of the weights as exceptions, one a 64 x 64 block 2.04%, one a tensor
// 2.09%; on trained weights 1.1-1.7% against 1.2-1.9%. Rows name their palette with one byte, so this costs nothing.
#pragma once

#include <array>
#include <cstdint>
#include <format/layout.hpp>
#include <span>
#include <vector>

namespace unweight::codec {

using ExponentHistogram = std::array<std::uint32_t, 256>;

/// Eight distinct exponents in ascending order.
using Palette = std::array<std::uint8_t, format::kPaletteSize>;

/// The 8 exponents that cover most of the row. Order of preference: higher count; nearer to the most frequent exponent
/// (the lowest such, on a tie); lower. Exponents that do not occur fill up in the same order, so that the palette of a
/// constant row is a window around its exponent and rows of equal scale share palettes.
[[nodiscard]] Palette best_palette(const ExponentHistogram& histogram);

/// How many values of the row lie outside `palette`.
[[nodiscard]] std::uint64_t count_outside(const ExponentHistogram& histogram, const Palette& palette);

/// At most 256 of the palettes in `wanted`: all, or the most frequent (on a tie the lexicographically lowest).
/// Sorted ascending, without duplicates.
[[nodiscard]] std::vector<Palette> make_dictionary(std::span<const Palette> wanted);

/// The palette of `dictionary` that leaves the fewest values of the row outside; the first such on a tie.
[[nodiscard]] std::uint8_t nearest_palette(const ExponentHistogram& histogram, std::span<const Palette> dictionary);

/// The base b in 0..192 for which [b + 1, b + 63] covers most of the non-zero exponents counted in `exceptions`;
/// the lowest such on a tie.
[[nodiscard]] std::uint8_t best_exception_base(std::span<const std::uint64_t, 256> exceptions);

}  // namespace unweight::codec
