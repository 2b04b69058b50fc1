// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/palette.hpp>
#include <map>
#include <utility>

namespace unweight::codec {

void RowCounts::assign(const std::array<std::uint32_t, 256>& histogram) noexcept {
  size = 0;
  for (std::size_t e = 0; e < histogram.size(); ++e) {
    if (histogram[e] == 0) continue;
    exponent[size] = static_cast<std::uint8_t>(e);
    count[size] = histogram[e];
    ++size;
  }
}

Palette best_palette(const RowCounts& row) noexcept {
  std::uint32_t most = 0;
  int mode = 0;
  for (std::uint32_t i = 0; i < row.size; ++i) {
    if (row.count[i] > most) {
      most = row.count[i];
      mode = row.exponent[i];
    }
  }
  // One comparable number an exponent: count, then nearness to the mode, then lowness. Kept in descending order.
  std::array<std::uint64_t, format::kPaletteSize> best{};
  const auto offer = [&](int e, std::uint32_t count) {
    const auto distance = static_cast<std::uint64_t>(e < mode ? mode - e : e - mode);
    std::uint64_t candidate = std::uint64_t{count} << 16 | (255 - distance) << 8 | static_cast<std::uint64_t>(255 - e);
    if (candidate <= best.back()) return;
    for (std::uint64_t& slot : best) {
      if (candidate > slot) std::swap(candidate, slot);
    }
  };
  for (std::uint32_t i = 0; i < row.size; ++i) offer(row.exponent[i], row.count[i]);
  if (row.size < best.size()) {
    std::array<bool, 256> occurs{};
    for (std::uint32_t i = 0; i < row.size; ++i) occurs[row.exponent[i]] = true;
    for (int e = 0; e < 256; ++e) {
      if (!occurs[static_cast<std::size_t>(e)]) offer(e, 0);
    }
  }
  Palette palette;
  std::transform(best.begin(), best.end(), palette.begin(),
                 [](std::uint64_t key) { return static_cast<std::uint8_t>(255 - (key & 255)); });
  std::sort(palette.begin(), palette.end());
  return palette;
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

std::size_t nearest_palette(const RowCounts& row, std::span<const Palette> dictionary) noexcept {
  std::array<std::uint32_t, 256> histogram{};
  for (std::uint32_t i = 0; i < row.size; ++i) histogram[row.exponent[i]] = row.count[i];
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
  return best;
}

std::uint8_t best_exception_base(const std::array<std::uint64_t, 256>& exceptions) noexcept {
  constexpr std::size_t kSpan = format::kExceptionWindow;
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
