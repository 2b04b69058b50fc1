// SPDX-License-Identifier: Apache-2.0
//
// The bounded knapsack problem: items of some kinds, several of each, within a capacity.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace unweight::tune {

struct KnapsackKind {
  double gain = 0;          ///< of one item; not positive: never taken
  std::uint64_t bytes = 0;  ///< of one item; 0: taken as far as there are
  std::uint64_t count = 0;  ///< items of the kind
};

struct KnapsackResult {
  std::vector<std::uint64_t> taken;  ///< of each kind
  double gain = 0;
  bool optimal = true;  ///< false when the search was cut short; the result is feasible all the same
};

/// The most gain within `capacity` bytes, by branch and bound. Deterministic.
/// @param most_nodes  of the search
[[nodiscard]] KnapsackResult fill_knapsack(std::span<const KnapsackKind> kinds, std::uint64_t capacity,
                                           std::uint64_t most_nodes = 1'000'000);

}  // namespace unweight::tune
