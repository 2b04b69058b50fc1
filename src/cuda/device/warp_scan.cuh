// SPDX-License-Identifier: Apache-2.0
//
// Sums along the lanes of a warp.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_decode.cuh>

namespace unweight::device {

/// The sums of this lane's and all lower lanes' values. By a whole warp.
__device__ inline std::uint32_t add_lower_lanes(std::uint32_t value, std::uint32_t lane) {
  UNWEIGHT_UNROLL
  for (std::uint32_t distance = 1; distance < kLanes; distance *= 2) {
    const std::uint32_t before = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += before;
  }
  return value;
}

__device__ inline std::uint64_t add_lower_lanes(std::uint64_t value, std::uint32_t lane) {
  UNWEIGHT_UNROLL
  for (std::uint32_t distance = 1; distance < kLanes; distance *= 2) {
    const std::uint32_t low = __shfl_up_sync(kAllLanes, static_cast<std::uint32_t>(value), distance);
    const std::uint32_t high = __shfl_up_sync(kAllLanes, static_cast<std::uint32_t>(value >> 32), distance);
    if (lane >= distance) value += std::uint64_t{high} << 32 | low;
  }
  return value;
}

}  // namespace unweight::device
