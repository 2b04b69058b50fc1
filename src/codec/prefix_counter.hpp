// SPDX-License-Identifier: Apache-2.0
//
// Histograms of prefixes, for the encoder of the distribution form.
#pragma once

#include <algorithm>
#include <array>
#include <codec/distribution_model.hpp>
#include <cstddef>
#include <cstdint>
#include <format/distribution_layout.hpp>
#include <span>
#include <vector>

namespace unweight::codec::distribution {

/// Counts the prefixes of a class with 32-bit numbers, in four tables by turns: equal values follow each other often,
/// and adding to a number that was just written waits for it.
class PrefixCounter {
 public:
  explicit PrefixCounter(std::uint32_t class_count) : tables_(class_count * kTables) {}

  void count(std::span<const std::uint16_t> values, std::uint32_t c, std::uint32_t octave_base) {
    auto* const tables = &tables_[std::size_t{c} * kTables];
    std::array<std::uint16_t, format::distribution::kLanes> indices;
    for (std::size_t begin = 0; begin < values.size(); begin += format::distribution::kLanes) {
      const std::size_t size = std::min<std::size_t>(format::distribution::kLanes, values.size() - begin);
      for (std::size_t i = 0; i < size; ++i) {
        const auto prefix = static_cast<std::uint16_t>(format::distribution::prefix_of(values[begin + i]));
        const auto relative =
            static_cast<std::uint16_t>((prefix - octave_base) & (format::distribution::kPrefixes - 1));
        indices[i] = prefix == 0 ? static_cast<std::uint16_t>(format::distribution::kPrefixes) : relative;
      }
      std::size_t i = 0;
      for (; i + kTables <= size; i += kTables) {
        ++tables[0][indices[i]];
        ++tables[1][indices[i + 1]];
        ++tables[2][indices[i + 2]];
        ++tables[3][indices[i + 3]];
      }
      for (; i < size; ++i) ++tables[0][indices[i]];
    }
  }

  void add_to(std::vector<ClassCounts>& counts) {
    for (std::size_t t = 0; t < tables_.size(); ++t) {
      ClassCounts& to = counts[t / kTables];
      for (std::uint32_t i = 0; i < format::distribution::kPrefixes; ++i) to.relative[i] += tables_[t][i];
      to.zeros += tables_[t][format::distribution::kPrefixes];
    }
  }

 private:
  static constexpr std::size_t kTables = 4;
  std::vector<std::array<std::uint32_t, format::distribution::kPrefixes + 1>> tables_;
};

}  // namespace unweight::codec::distribution
