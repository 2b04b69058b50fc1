// SPDX-License-Identifier: Apache-2.0
//
// Rings of slots in shared memory, each with a barrier that tells that it is full and one that tells that it is empty.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>

namespace unweight::sm90 {

/// A place in a ring, and the parity of a barrier there: producers begin with parity 1, since all slots are free.
struct RingPlace {
  std::uint32_t slot = 0, parity = 0;

  /// By fewer places than the ring has, or as many.
  UNWEIGHT_HOST_DEVICE void advance(std::uint32_t places, std::uint32_t slots) {
    slot += places;
    if (slot < slots) return;
    slot -= slots;
    parity ^= 1;
  }

  /// So many places before, no more than there are.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t previous(std::uint32_t slots, std::uint32_t places = 1) const {
    return (slot < places ? slot + slots : slot) - places;
  }
};

/// Whether every lane arrives at a barrier for itself, instead of one for its warp.
#ifdef UNWEIGHT_RACECHECK
inline constexpr bool kForRacecheck = true;
#else
inline constexpr bool kForRacecheck = false;
#endif

}  // namespace unweight::sm90
