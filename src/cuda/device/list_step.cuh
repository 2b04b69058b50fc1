// SPDX-License-Identifier: Apache-2.0
//
// A step through a tile's list of exceptions by a warp: one unit a lane, of which some are the second halves of
// extended entries (exception_list.cuh).
#pragma once

#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/bf16.hpp>

namespace unweight::device {

struct ListStep {
  bool has_entry;  ///< the lane's unit begins an entry; no two lanes' entries name the same position, as these ascend
  std::uint8_t exponent;     ///< of that entry
  std::uint32_t units_read;  ///< how many units to go on by
};

/// @param unit   the lane's unit, where the list has one for it
/// @param left   units of the list from the first lane's on
/// @param base   the blob's exception_base
__device__ inline ListStep read_list_step(std::uint16_t unit, std::uint32_t left, std::uint32_t lane,
                                          std::uint8_t base) {
  const std::uint32_t extended = __ballot_sync(kAllLanes, lane < left && format::entry_is_extended(unit));
  std::uint8_t exponent = format::entry_exponent(unit, base);
  if (extended != 0) {
    const std::uint32_t next = __shfl_down_sync(kAllLanes, std::uint32_t{unit}, 1);
    if (format::entry_is_extended(unit)) exponent = static_cast<std::uint8_t>(next);
  }
  return {begins_entry(extended, lane, left), exponent, units_read(extended)};
}

}  // namespace unweight::device
