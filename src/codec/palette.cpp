// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/palette.hpp>
#include <map>
#include <numeric>
#include <utility>

namespace unweight::codec {

Palette best_palette(const ExponentHistogram& histogram) {
  int mode = 0;
  for (int e = 1; e < 256; ++e) {
    if (histogram[static_cast<std::size_t>(e)] > histogram[static_cast<std::size_t>(mode)]) mode = e;
  }
  // One comparable number an exponent, highest first: count, then nearness to the mode, then lowness.
  const auto preference = [&](int e) {
    const auto distance = static_cast<std::uint64_t>(e < mode ? mode - e : e - mode);
    return std::uint64_t{histogram[static_cast<std::size_t>(e)]} << 16 | (255 - distance) << 8 |
           static_cast<std::uint64_t>(255 - e);
  };
  std::array<std::uint64_t, format::kPaletteSize> best{};  // descending
  for (int e = 0; e < 256; ++e) {
    std::uint64_t candidate = preference(e);
    if (candidate <= best.back()) continue;
    for (std::uint64_t& slot : best) {
      if (candidate > slot) std::swap(candidate, slot);
    }
  }
  Palette palette;
  std::transform(best.begin(), best.end(), palette.begin(),
                 [](std::uint64_t key) { return static_cast<std::uint8_t>(255 - (key & 255)); });
  std::sort(palette.begin(), palette.end());
  return palette;
}

std::uint64_t count_outside(const ExponentHistogram& histogram, const Palette& palette) {
  std::uint64_t outside = std::accumulate(histogram.begin(), histogram.end(), std::uint64_t{0});
  for (const std::uint8_t e : palette) outside -= histogram[e];
  return outside;
}

std::vector<Palette> make_dictionary(std::span<const Palette> wanted) {
  std::map<Palette, std::uint64_t> uses;
  for (const Palette& palette : wanted) ++uses[palette];
  std::vector<std::pair<Palette, std::uint64_t>> by_use(uses.begin(), uses.end());
  if (by_use.size() > format::kMaxPalettes) {
    std::stable_sort(by_use.begin(), by_use.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    by_use.resize(format::kMaxPalettes);
  }
  std::vector<Palette> dictionary;
  dictionary.reserve(by_use.size());
  for (const auto& [palette, count] : by_use) dictionary.push_back(palette);
  std::sort(dictionary.begin(), dictionary.end());
  return dictionary;
}

std::uint8_t nearest_palette(const ExponentHistogram& histogram, std::span<const Palette> dictionary) {
  std::size_t best = 0;
  std::uint64_t best_covered = 0;
  for (std::size_t p = 0; p < dictionary.size(); ++p) {
    std::uint64_t covered = 0;
    for (const std::uint8_t e : dictionary[p]) covered += histogram[e];
    if (covered > best_covered) {
      best = p;
      best_covered = covered;
    }
  }
  return static_cast<std::uint8_t>(best);
}

std::uint8_t best_exception_base(std::span<const std::uint64_t, 256> exceptions) {
  constexpr std::size_t kSpan = format::kExceptionExponents - 1;
  std::uint64_t covered = 0;
  for (std::size_t e = 1; e <= kSpan; ++e) covered += exceptions[e];
  std::size_t best = 0;
  std::uint64_t best_covered = covered;
  for (std::size_t base = 1; base <= format::kMaxExceptionBase; ++base) {
    covered = covered - exceptions[base] + exceptions[base + kSpan];
    if (covered > best_covered) {
      best = base;
      best_covered = covered;
    }
  }
  return static_cast<std::uint8_t>(best);
}

}  // namespace unweight::codec
