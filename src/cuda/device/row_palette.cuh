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
  std::uint32_t lane_members;  ///< bit i: exponent 8 l + i
};

/// The largest of all lanes' numbers, of those with `count` alone.
__device__ inline std::uint32_t largest_with(const LaneCounts& counts, std::uint32_t open, std::uint32_t count,
                                             const std::uint32_t (&rank)[kLaneExponents]) {
  std::uint32_t best = 0;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
    if ((open >> i & 1) != 0 && counts.of[i] == count && rank[i] > best) best = rank[i];
  }
  return __reduce_max_sync(kAllLanes, best);
}

__device__ inline std::uint32_t largest_count(const LaneCounts& counts, std::uint32_t open) {
  std::uint32_t most = 0;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
    if ((open >> i & 1) != 0 && counts.of[i] > most) most = counts.of[i];
  }
  return __reduce_max_sync(kAllLanes, most);
}

__device__ inline ChosenPalette choose_palette(const LaneCounts& counts, std::uint32_t lane) {
  constexpr std::uint32_t kAll = (1U << kLaneExponents) - 1;
  std::uint32_t rank[kLaneExponents];
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) rank[i] = kExponents - (kLaneExponents * lane + i);
  const std::uint32_t mode = kExponents - largest_with(counts, kAll, largest_count(counts, kAll), rank);
  // From 1 on: nearness to the mode in the high bits, lowness in the low ones.
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneExponents; ++i) {
    const std::uint32_t exponent = kLaneExponents * lane + i;
    const std::uint32_t distance = exponent < mode ? mode - exponent : exponent - mode;
    rank[i] = (255 - distance) << 8 | (255 - exponent);
    ++rank[i];
  }
  ChosenPalette palette{0, 0};
  std::uint32_t sorted[format::kPaletteSize];
  UNWEIGHT_UNROLL
  for (std::uint32_t k = 0; k < format::kPaletteSize; ++k) {
    const std::uint32_t open = kAll & ~palette.lane_members;
    const std::uint32_t best = largest_with(counts, open, largest_count(counts, open), rank);
    std::uint32_t exponent = 255 - ((best - 1) & 255);
    if (exponent / kLaneExponents == lane) palette.lane_members |= 1U << exponent % kLaneExponents;
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
  return palette;
}

}  // namespace unweight::device
