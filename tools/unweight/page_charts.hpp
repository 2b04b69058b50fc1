// SPDX-License-Identifier: Apache-2.0
//
// The report's charts as SVG text. Colours and fonts come from the page's style sheet; hovering shows exact values.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <tensor_summary.hpp>

namespace unweight::cli {

/// Text made safe between tags and in attributes.
[[nodiscard]] std::string escape_markup(std::string_view text);

/// Colours s0, s1, ... that the style sheet defines.
inline constexpr std::size_t kSeriesColours = 10;

/// Bits/weight over layers, one line for each of the first kSeriesColours kinds that have layers and blobs. Empty when
/// there is nothing to draw.
[[nodiscard]] std::string layer_chart(const TensorSummary& summary);

/// One bar of bits/weight for each kind, with a mark at the floor of exponent coding: 8 bits + the exponent's entropy.
[[nodiscard]] std::string kind_chart(const TensorSummary& summary);

/// How often each exponent occurs. The 8 most frequent ones stand out.
enum class HistogramSize : std::uint8_t { kLarge, kSmall };
[[nodiscard]] std::string histogram_chart(const ExponentHistogram& histogram, HistogramSize size);

/// Share of the 8 most frequent exponents.
[[nodiscard]] double top8_share(const ExponentHistogram& histogram);

}  // namespace unweight::cli
