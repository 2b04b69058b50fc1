// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/palette.hpp>
#include <cstring>
#include <format/bf16.hpp>
#include <unordered_map>
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

void RowCounts::assign(const std::uint16_t* values, std::size_t count_of_values) noexcept {
  // Neighbouring weights often share an exponent; four tables keep an increment from waiting for the one before it.
  std::array<std::array<std::uint32_t, 256>, 4> parts{};
  std::size_t i = 0;
  for (; i + 4 <= count_of_values; i += 4) {
    for (std::size_t j = 0; j < 4; ++j) ++parts[j][format::exponent_of(values[i + j])];
  }
  for (; i < count_of_values; ++i) ++parts[0][format::exponent_of(values[i])];
  for (std::size_t e = 0; e < parts[0].size(); ++e) parts[0][e] += parts[1][e] + parts[2][e] + parts[3][e];
  assign(parts[0]);
}

Palette best_palette(const std::uint16_t* values, std::size_t count) noexcept {
  RowCounts row;
  row.assign(values, count);
  return best_palette(row);
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

Dictionary make_dictionary(std::span<const Palette> wanted) {
  struct Use {
    Palette palette;
    std::uint32_t number;  // in order of first appearance
    std::uint64_t rows;
  };
  std::vector<Use> uses;
  Dictionary dictionary;
  dictionary.numbers.reserve(wanted.size());
  // Few palettes make up nearly all rows. The last one seen for each hash is kept, in front of the map of all: looking
  // every row up in an ordered map took a tenth of the time to encode rows of 384 values.
  std::unordered_map<std::uint64_t, std::uint32_t> number_of;
  struct Seen {
    std::uint64_t key = 0;  // no palette: exponents differ
    std::uint32_t number = 0;
  };
  std::array<Seen, 256> last_seen;
  for (const Palette& palette : wanted) {
    std::uint64_t key;
    std::memcpy(&key, palette.data(), sizeof key);
    Seen& seen = last_seen[key * 0x9e3779b97f4a7c15U >> 56];
    if (seen.key != key) {
      const auto [at, is_new] = number_of.try_emplace(key, static_cast<std::uint32_t>(uses.size()));
      if (is_new) uses.push_back({palette, at->second, 0});
      seen = {key, at->second};
    }
    ++uses[seen.number].rows;
    dictionary.numbers.push_back(seen.number);
  }

  const auto by_palette = [](const Use& a, const Use& b) { return a.palette < b.palette; };
  if (uses.size() > format::kMaxPalettes) {
    std::sort(uses.begin(), uses.end(),
              [&](const Use& a, const Use& b) { return a.rows != b.rows ? a.rows > b.rows : by_palette(a, b); });
    uses.resize(format::kMaxPalettes);
  }
  std::sort(uses.begin(), uses.end(), by_palette);
  std::vector<std::uint32_t> rank(number_of.size(), Dictionary::kMissing);
  for (const Use& use : uses) {
    rank[use.number] = static_cast<std::uint32_t>(dictionary.palettes.size());
    dictionary.palettes.push_back(use.palette);
  }
  for (std::uint32_t& number : dictionary.numbers) number = rank[number];
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
