// SPDX-License-Identifier: Apache-2.0
//
// The slots of a blob's classes, made from its frequencies by a thread block, in shared memory.
#pragma once

#include <cstdint>
#include <cuda/device/rans_lane.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/warp_scan.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::device {

/// What is needed only while the tables are made.
struct SlotScratch {
  std::uint16_t frequency[format::distribution::kMaxClasses][format::distribution::kRanks];
  std::uint16_t first[format::distribution::kMaxClasses][format::distribution::kRanks];
};

/// Reads the frequencies of a class, a warp's work. Tables that do not fit their units, which a validated blob does not
/// have, count as zeros.
/// @param units  the blob's table section, of `count` units
__device__ inline void read_class(const std::uint16_t* units, std::uint32_t count, std::uint32_t c, std::uint32_t lane,
                                  SlotScratch& scratch) {
  using namespace format::distribution;
  std::uint32_t begin = 0;
  for (std::uint32_t i = 0; i < c && begin < count; ++i) begin += kTableHeadUnits + units[begin];
  const bool fits = begin + kTableHeadUnits <= count && begin + kTableHeadUnits + units[begin] <= count;
  const std::uint32_t window = fits ? units[begin] : 0;
  constexpr std::uint32_t kLaneRanks = kRanks / kLanes;
  std::uint32_t frequencies[kLaneRanks], sum = 0;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneRanks; ++i) {
    const std::uint32_t rank = lane * kLaneRanks + i;
    std::uint32_t frequency = 0;
    if (rank < window) frequency = units[begin + kTableHeadUnits + rank];
    if (fits && rank >= kMaxWindow) frequency = units[begin + 1 + rank - kZeroRank];
    frequencies[i] = frequency;
    sum += frequency;
  }
  std::uint32_t first = add_lower_lanes(sum, lane) - sum;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kLaneRanks; ++i) {
    const std::uint32_t rank = lane * kLaneRanks + i;
    scratch.frequency[c][rank] = static_cast<std::uint16_t>(frequencies[i]);
    scratch.first[c][rank] = static_cast<std::uint16_t>(first);
    first += frequencies[i];
  }
}

/// Makes the tables of `classes` classes; all of a block's `warps` warps take part. `scratch` may be used for other
/// things after a barrier.
/// @param tables  kFrequencyTotal slots a class
__device__ inline void make_slot_tables(const std::uint16_t* units, std::uint32_t unit_count, std::uint32_t classes,
                                        std::uint32_t warps, std::uint32_t warp, std::uint32_t lane,
                                        SlotScratch& scratch, RansSlot* tables) {
  using namespace format::distribution;
  for (std::uint32_t c = warp; c < classes; c += warps) read_class(units, unit_count, c, lane, scratch);
  __syncthreads();
  for (std::uint32_t i = warp; i < classes * kRanks; i += warps) {
    const std::uint32_t c = i / kRanks, rank = i % kRanks;
    const std::uint32_t frequency = scratch.frequency[c][rank], first = scratch.first[c][rank];
    for (std::uint32_t slot = lane; slot < frequency && first + slot < kFrequencyTotal; slot += kLanes) {
      tables[c * kFrequencyTotal + first + slot] = make_slot(frequency, rank, slot);
    }
  }
}

}  // namespace unweight::device
