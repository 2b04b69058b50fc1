// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/cluster.cuh.
#pragma once

#include "emulation/emulator.hpp"
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace unweight::ptx {

inline void cluster_arrive_relaxed() { emulation::cluster_arrive(); }
inline void cluster_arrive() { emulation::cluster_arrive(); }
inline void cluster_wait() { emulation::cluster_wait(); }

inline void barrier_arrive_at(std::uint32_t barrier, std::uint32_t rank) {
  emulation::barrier_arrive_at(rank, barrier);
}

inline constexpr std::uint32_t kClusterRankBit = 24;
inline std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  return address | rank << kClusterRankBit;
}

template <std::size_t Count>
void store_to_cluster(std::uint32_t to, const float (&values)[Count]) {
  const std::uint32_t rank = to >> kClusterRankBit, address = to & ((1U << kClusterRankBit) - 1);
  std::memcpy(emulation::cluster_range(rank, address, sizeof values, sizeof values), values, sizeof values);
}

inline void store_async_to_cluster(std::uint32_t to, const float (&values)[4], std::uint32_t barrier) {
  constexpr std::uint32_t kAddress = (1U << kClusterRankBit) - 1;
  emulation::store_to(to >> kClusterRankBit, to & kAddress, values, sizeof values, barrier & kAddress);
}

}  // namespace unweight::ptx
