// SPDX-License-Identifier: Apache-2.0
//
// The search for the best candidates of every cell.
#pragma once

#include <algorithm>
#include <tune/bench.hpp>
#include <unweight/tune.hpp>

namespace unweight::tune {

/// A candidate that falls behind the best of its kind by this factor is dropped.
inline constexpr double kDropBeyond = 1.25;
/// Families whose middle configuration is that near the best have all of theirs tried.
inline constexpr double kExpandWithin = 1.15;
/// Below this, a difference counts as noise whatever the samples say.
inline constexpr double kLeastNoise = 0.005;

/// Whether one choice took longer than another by more than the noise of either.
[[nodiscard]] inline bool clearly_slower(const Measurement& one, const Measurement& other) {
  return one.us > (1 + std::max({kLeastNoise, one.noise, other.noise})) * other.us;
}

/// Measures all cells; the plan has no matrices and no request yet. Errors: kInvalidArgument (options), kCancelled,
/// kNotIdentical where a kernel's output differs from its oracle, and what the bench reports.
[[nodiscard]] Result<TuneReport> tune(Bench& bench, const TuneOptions& options);

}  // namespace unweight::tune
