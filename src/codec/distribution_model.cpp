// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/distribution_model.hpp>

namespace unweight::codec::distribution {

using namespace format::distribution;

namespace {

/// A prefix or the zero symbol is rare when fewer than one value in 2^16 has it: escapes are cheaper then than a
/// frequency of 1 in 2^12 that is missing elsewhere.
constexpr std::uint64_t kRareShift = 16;

/// Windows reach this far below the most frequent prefix, and take 253 ranks in all but for that one.
constexpr std::uint32_t kWindowBelow = 190;

constexpr std::uint32_t kOctaves = kPrefixes / kPrefixesPerOctave;

std::uint32_t octave_base(std::uint32_t position, std::uint32_t class_count) noexcept {
  return position / class_count * kPrefixesPerOctave;
}

}  // namespace

std::uint32_t choose_class_count(const MatrixShape& shape) noexcept {
  const std::uint64_t values = shape.batch * shape.rows * shape.cols;
  return values >= std::uint64_t{1} << 18 ? 4 : values >= std::uint64_t{1} << 16 ? 2 : 1;
}

std::uint32_t choose_count_interval(const MatrixShape& shape) noexcept {
  const std::uint64_t values = shape.batch * shape.rows * shape.cols;
  if (shape.cols < 256) return 1;
  return values >= std::uint64_t{1} << 22 ? 8 : values >= std::uint64_t{1} << 17 ? 4 : 1;
}

std::uint32_t scale_position(const RowSums& sums, std::uint32_t class_count) noexcept {
  if (sums.count == 0) return 0;
  const std::uint64_t rounded =
      (2 * class_count * sums.prefixes + kPrefixesPerOctave * sums.count) / (2 * kPrefixesPerOctave * sums.count);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(rounded, kOctaves * class_count - 1));
}

bool limit_positions(std::span<std::uint16_t> positions, std::uint32_t class_count) {
  std::array<bool, kPrefixes> occurs{};
  for (const std::uint16_t position : positions) occurs[position] = true;
  if (std::count(occurs.begin(), occurs.end(), true) <= kMaxScales) return false;
  for (std::uint16_t& position : positions) {
    position = static_cast<std::uint16_t>(position / class_count * class_count);
  }
  return true;
}

void ClassCounts::add(const ClassCounts& other) noexcept {
  for (std::size_t i = 0; i < relative.size(); ++i) relative[i] += other.relative[i];
  zeros += other.zeros;
}

Frequencies normalize(const std::array<std::uint64_t, kRanks>& counts, const std::array<bool, kRanks>& wanted) {
  Frequencies frequencies{};
  std::array<bool, kRanks> shares = wanted;  // the frequency in proportion to the count; 1 for all others wanted
  for (bool settled = false; !settled;) {
    std::uint64_t total = 0, slots = kFrequencyTotal;
    for (std::uint32_t s = 0; s < kRanks; ++s) {
      if (shares[s]) total += counts[s];
      if (wanted[s] && !shares[s]) --slots;
    }
    settled = true;
    for (std::uint32_t s = 0; s < kRanks; ++s) {
      if (shares[s] && counts[s] * slots < total) shares[s] = settled = false;
    }
    if (!settled) continue;
    if (total == 0) {  // nothing was counted: all slots to the last symbol wanted
      for (std::uint32_t s = 0; s < kRanks; ++s) frequencies[s] = wanted[s] ? 1 : 0;
      const auto last = static_cast<std::uint32_t>(std::find(wanted.rbegin(), wanted.rend(), true) - wanted.rbegin());
      const auto ones = static_cast<std::uint32_t>(std::count(wanted.begin(), wanted.end(), true));
      frequencies[kRanks - 1 - last] = static_cast<std::uint16_t>(kFrequencyTotal - (ones - 1));
      return frequencies;
    }
    // Largest remainder: whole parts first, then one more for those that lost most.
    std::vector<std::pair<std::uint64_t, std::uint32_t>> remainders;
    std::uint64_t left = slots;
    for (std::uint32_t s = 0; s < kRanks; ++s) {
      if (!shares[s]) {
        frequencies[s] = wanted[s] ? 1 : 0;
        continue;
      }
      frequencies[s] = static_cast<std::uint16_t>(counts[s] * slots / total);
      left -= frequencies[s];
      remainders.emplace_back(counts[s] * slots % total, s);
    }
    std::stable_sort(remainders.begin(), remainders.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (std::uint64_t i = 0; i < left; ++i) ++frequencies[remainders[static_cast<std::size_t>(i)].second];
  }
  return frequencies;
}

ClassModel make_class_model(const ClassCounts& counts) {
  ClassModel model;
  std::uint64_t total = counts.zeros;
  for (const std::uint64_t count : counts.relative) total += count;
  const auto rare = [total](std::uint64_t count) { return count << kRareShift < total || count == 0; };

  const auto peak = static_cast<std::uint32_t>(std::max_element(counts.relative.begin(), counts.relative.end()) -
                                               counts.relative.begin());
  const std::uint32_t lowest = peak - kWindowBelow;  // modulo 1024, as all relative prefixes
  const auto count_at = [&](std::uint32_t i) { return counts.relative[(lowest + i) & (kPrefixes - 1)]; };
  std::uint32_t begin = 0, end = kMaxWindow;
  while (begin < end && rare(count_at(begin))) ++begin;
  while (end > begin && rare(count_at(end - 1))) --end;
  model.window = end - begin;
  model.window_begin = model.window == 0 ? 0 : (lowest + begin) & (kPrefixes - 1);

  std::array<std::uint64_t, kRanks> symbols{};
  std::array<bool, kRanks> wanted{};
  std::uint64_t escapes = total;
  for (std::uint32_t rank = 0; rank < model.window; ++rank) {
    symbols[rank] = count_at(begin + rank);
    wanted[rank] = true;
    escapes -= symbols[rank];
  }
  if (!rare(counts.zeros)) {
    symbols[kZeroRank] = counts.zeros;
    wanted[kZeroRank] = true;
    escapes -= counts.zeros;
  }
  symbols[kEscapeRank] = escapes;
  wanted[kEscapeRank] = true;
  model.frequencies = normalize(symbols, wanted);
  return model;
}

TensorModel make_tensor_model(std::span<const std::uint16_t> positions, std::span<const ClassCounts> counts) {
  TensorModel model;
  const auto class_count = static_cast<std::uint32_t>(counts.size());
  for (const ClassCounts& each : counts) model.classes.push_back(make_class_model(each));

  std::array<bool, kPrefixes> occurs{};
  for (const std::uint16_t position : positions) occurs[position] = true;
  std::array<std::uint8_t, kPrefixes> number{};
  for (std::uint32_t position = 0; position < occurs.size(); ++position) {
    if (!occurs[position]) continue;
    number[position] = static_cast<std::uint8_t>(model.scales.size());
    const std::uint32_t c = position % class_count;
    const std::uint32_t base = (octave_base(position, class_count) + model.classes[c].window_begin) & (kPrefixes - 1);
    model.scales.push_back(static_cast<std::uint16_t>(c << 10 | base));
  }
  model.row_scales.reserve(positions.size());
  for (const std::uint16_t position : positions) model.row_scales.push_back(number[position]);
  return model;
}

std::vector<std::uint16_t> table_units(std::span<const ClassModel> classes) {
  std::vector<std::uint16_t> units;
  for (const ClassModel& model : classes) {
    units.push_back(static_cast<std::uint16_t>(model.window));
    units.push_back(model.frequencies[kZeroRank]);
    units.push_back(model.frequencies[kEscapeRank]);
    units.insert(units.end(), model.frequencies.begin(), model.frequencies.begin() + model.window);
  }
  return units;
}

EncodeTable make_encode_table(const ClassModel& model) noexcept {
  EncodeTable table;
  table.window = model.window;
  table.zero_rank = model.frequencies[kZeroRank] != 0 ? kZeroRank : kEscapeRank;
  std::uint32_t first = 0;
  for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
    const std::uint32_t frequency = model.frequencies[rank];
    table.symbols[rank] = frequency | first << 16;
    first += frequency;
    if (frequency > model.frequencies[table.padding_rank]) table.padding_rank = rank;
  }
  return table;
}

}  // namespace unweight::codec::distribution
