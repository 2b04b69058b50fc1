// SPDX-License-Identifier: Apache-2.0
//
// The palette that a row prefers (docs/FORMAT.md, section 6), chosen by a warp whose lanes have its counts: the 8 best
// of all exponents, by count, then nearness to the most frequent one, then lowness.
#pragma once

#include <cstdint>
#include <cuda/device/row_counts.cuh>

namespace unweight::device {

/// A palette, the same in all lanes, and which of its own exponents a lane has there.
struct ChosenPalette {
  PaletteKey key;
  std::uint32_t lane_members;  ///< bit i: exponent 8 l + i. Perhaps also one that does not occur
};

/// Counts and ranks of a lane's exponents as numbers that are compared at once: a count in the high bits, in the low 16
/// a rank that no two exponents share. 0: not to be chosen.
template <class Score>
struct LaneScores {
  Score of[kLaneExponents];

  /// The best of all lanes' scores, the same in all lanes.
  [[nodiscard]] __device__ Score best() const {
    Score best = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kLaneExponents; ++i) best = of[i] > best ? of[i] : best;
    return best_of_lanes(best);
  }

  [[nodiscard]] static __device__ Score make(std::uint32_t count, std::uint32_t rank) {
    return static_cast<Score>(count) << 16 | rank;
  }

 private:
  static __device__ std::uint32_t best_of_lanes(std::uint32_t score) { return __reduce_max_sync(kAllLanes, score); }
  static __device__ std::uint64_t best_of_lanes(std::uint64_t score) {
    const auto high = static_cast<std::uint32_t>(score >> 32);
    const std::uint32_t best = __reduce_max_sync(kAllLanes, high);
    const std::uint32_t low = high == best ? static_cast<std::uint32_t>(score) : 0;
    return std::uint64_t{best} << 32 | __reduce_max_sync(kAllLanes, low);
  }
};

/// As choose_palette(), with scores that have room for all counts.
template <class Score>
__device__ ChosenPalette choose_by_scores(const LaneCounts& counts, std::uint32_t lane) {
  LaneScores<Score> scores;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
    scores.of[i] = scores.make(counts.of[i], kExponents - (kLaneExponents * lane + i));
  }
  const std::uint32_t mode = kExponents - (static_cast<std::uint32_t>(scores.best()) & 0xffff);
  // Nearness to the mode in the high bits of the rank, lowness in the low ones. 0 is that of exponent 255 where 0 is
  // the mode: of the 248 that are not chosen, unless it occurs.
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
    const std::uint32_t exponent = kLaneExponents * lane + i;
    const std::uint32_t distance = exponent < mode ? mode - exponent : exponent - mode;
    scores.of[i] = scores.make(counts.of[i], (255 - distance) << 8 | (255 - exponent));
  }
  ChosenPalette palette{0, 0};
  std::uint32_t sorted[format::kPaletteSize];
  UNWEIGHT_UNROLL
  for (std::uint32_t k = 0; k < format::kPaletteSize; ++k) {
    const Score best = scores.best();
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
      if (scores.of[i] == best) scores.of[i] = 0;
    }
    std::uint32_t exponent = 255 - (static_cast<std::uint32_t>(best) & 255);
    UNWEIGHT_UNROLL
    for (std::uint32_t j = 0; j < k; ++j) {
      const std::uint32_t lower = min(sorted[j], exponent), higher = max(sorted[j], exponent);
      sorted[j] = lower;
      exponent = higher;
    }
    sorted[k] = exponent;
  }
  UNWEIGHT_UNROLL
  for (std::uint32_t k = 0; k < format::kPaletteSize; ++k) palette.key = palette.key << 8 | sorted[k];
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) palette.lane_members |= (scores.of[i] == 0 ? 1U : 0U) << i;
  return palette;
}

/// @param cols  of the row: all counts together
__device__ inline ChosenPalette choose_palette(const LaneCounts& counts, std::uint64_t cols, std::uint32_t lane) {
  constexpr std::uint64_t kMostOf32Bits = 0xffff;
  return cols <= kMostOf32Bits ? choose_by_scores<std::uint32_t>(counts, lane)
                               : choose_by_scores<std::uint64_t>(counts, lane);
}

}  // namespace unweight::device
