// SPDX-License-Identifier: Apache-2.0
//
// The search for the best candidates of one cell.
#pragma once

#include <map>
#include <string>
#include <tune/bench.hpp>
#include <vector>

namespace unweight::tune {

struct SearchLimits {
  double deadline_s = 0;    ///< on the bench's clock; explores nothing more after it
  bool exhaustive = false;  ///< every candidate is timed
};

/// What the search has seen, for the report.
struct SearchCounts {
  std::uint64_t timed = 0;
  std::uint64_t refused = 0;
  std::map<std::string, std::string> refusals;  ///< reason -> the first candidate with it
};

/// Of a weight in both layouts: the cells of the tiled and of the raw one.
struct CellPair {
  PlanCell tiled, raw;
};

/// @param incumbents  choices that take part in the last rounds whatever the search finds, and that stay first in their
///                    lists unless another one is faster beyond the noise
/// @param neighbour   cells of fewer tokens, whose choices are tried first; or empty ones
[[nodiscard]] Result<CellPair> search_cell(Bench& bench, std::uint32_t tokens, const CellPair& incumbents,
                                           const CellPair& neighbour, const SearchLimits& limits, SearchCounts& counts);

}  // namespace unweight::tune
