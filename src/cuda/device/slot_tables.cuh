// SPDX-License-Identifier: Apache-2.0
//
// The slots of a blob's classes, made from its frequencies by warps that need not know of each other, in shared memory.
// A lane has eight ranks of a class; what a warp makes at a time are the slots of one of each lane's ranks, so that the
// ranks that occur, which are neighbours, are shared out.
#pragma once

#include <cstdint>
#include <cuda/device/rans_lane.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/warp_scan.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::device {

inline constexpr std::uint32_t kLaneRanks = format::distribution::kRanks / kLanes;

/// The blob's table section.
struct TableUnits {
  const std::uint16_t* units;
  std::uint32_t count;
};

/// A lane's ranks 8 l .. 8 l + 7 of a class.
struct LaneFrequencies {
  std::uint32_t of[kLaneRanks];
  std::uint32_t first;  ///< slot of the first of them

  /// Tables that do not fit their units, which a validated blob does not have, count as zeros.
  __device__ void read(const TableUnits& tables, std::uint32_t c, std::uint32_t lane) {
    using namespace format::distribution;
    std::uint32_t begin = 0;
    for (std::uint32_t i = 0; i < c && begin < tables.count; ++i) begin += kTableHeadUnits + tables.units[begin];
    const bool fits =
        begin + kTableHeadUnits <= tables.count && begin + kTableHeadUnits + tables.units[begin] <= tables.count;
    const std::uint32_t window = fits ? tables.units[begin] : 0;
    std::uint32_t sum = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kLaneRanks; ++i) {
      const std::uint32_t rank = lane * kLaneRanks + i;
      std::uint32_t frequency = 0;
      if (rank < window) frequency = tables.units[begin + kTableHeadUnits + rank];
      if (fits && rank >= kMaxWindow) frequency = tables.units[begin + 1 + rank - kZeroRank];
      of[i] = frequency;
      sum += frequency;
    }
    first = add_lower_lanes(sum, lane) - sum;
  }
};

/// Makes the slots of every lane's rank number `i`; by a warp.
/// @param table  the class's kFrequencyTotal slots
__device__ inline void make_slots(const LaneFrequencies& frequencies, std::uint32_t i, std::uint32_t lane,
                                  RansSlot* table) {
  using namespace format::distribution;
  std::uint32_t mine = 0, mine_first = frequencies.first;
  UNWEIGHT_UNROLL
  for (std::uint32_t j = 0; j < kLaneRanks; ++j) {
    if (j == i) mine = frequencies.of[j];
    if (j < i) mine_first += frequencies.of[j];
  }
  for (std::uint32_t owners = __ballot_sync(kAllLanes, mine != 0); owners != 0; owners &= owners - 1) {
    const auto owner = static_cast<std::uint32_t>(__ffs(static_cast<int>(owners)) - 1);
    const std::uint32_t frequency = __shfl_sync(kAllLanes, mine, owner);
    const std::uint32_t first = __shfl_sync(kAllLanes, mine_first, owner);
    for (std::uint32_t slot = lane; slot < frequency && first + slot < kFrequencyTotal; slot += kLanes) {
      table[first + slot] = make_slot(frequency, kLaneRanks * owner + i, slot);
    }
  }
}

/// Makes the tables of `classes` classes, with number `maker` of `makers` warps. They are there after a barrier.
/// @param slots  kFrequencyTotal slots a class
__device__ inline void make_slot_tables(const TableUnits& tables, std::uint32_t classes, std::uint32_t makers,
                                        std::uint32_t maker, std::uint32_t lane, RansSlot* slots) {
  UNWEIGHT_NO_UNROLL
  for (std::uint32_t part = maker; part < classes * kLaneRanks; part += makers) {
    const std::uint32_t c = part / kLaneRanks;
    LaneFrequencies frequencies;
    frequencies.read(tables, c, lane);
    make_slots(frequencies, part % kLaneRanks, lane, slots + c * format::distribution::kFrequencyTotal);
  }
}

}  // namespace unweight::device
