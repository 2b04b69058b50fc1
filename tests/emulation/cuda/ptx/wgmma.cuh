// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/wgmma.cuh. A product is taken where it is waited for, so that B must stay until
// then.
#pragma once

#include "emulation/emulator.hpp"
#include <array>
#include <cstring>
#include <cuda/ptx/mma.cuh>
#include <stdexcept>
#include <vector>

namespace unweight::ptx {

/// What the running thread has begun.
struct PendingProduct {
  float (*d)[4];
  std::uint32_t tiles;
  std::array<std::uint32_t, 4> a;
  std::uint32_t b;
};
using PendingSeries = std::vector<PendingProduct>;
/// The last series is not committed yet.
inline std::array<std::vector<PendingSeries>, emulation::kMostClusterThreads> pending_series;
inline std::vector<PendingSeries>& pending_of_thread() {
  auto& pending = pending_series[emulation::thread_of_cluster()];
  if (pending.empty()) pending.emplace_back();
  return pending;
}

template <std::size_t Tiles>
void wgmma_fence(float (&)[Tiles][4]) {
  __syncwarp();
}
inline void wgmma_fence_again() { __syncwarp(); }
inline void fence_async_proxy() {}

inline std::uint32_t wgmma_operand(std::uint32_t address) { return address; }
inline std::uint32_t wgmma_operand_at(std::uint32_t operand, std::uint32_t values) { return operand + 2 * values; }

template <std::size_t Tiles>
void wgmma(float (&d)[Tiles][4], const std::uint32_t (&a)[4], std::uint32_t b) {
  pending_of_thread().back().push_back({d, Tiles, {a[0], a[1], a[2], a[3]}, b});
}

inline void wgmma_commit() { pending_of_thread().emplace_back(); }

inline void wgmma_hold(const std::uint32_t (&)[4][4], std::uint32_t) {}
inline void wgmma_hold_apart(const std::uint32_t (&)[4][4], std::uint32_t) {}

/// Takes the products of all committed series but the last `left`.
inline void take_products(std::size_t left) {
  auto& pending = pending_of_thread();
  while (pending.size() > left + 1) {
    for (const PendingProduct& product : pending.front()) {
      const auto begin = product.b / 1024 * 1024;
      const auto first_k = product.b % 1024 / 2;  // in the swizzle's pattern of 64 along K
      for (std::uint32_t tile = 0; tile < product.tiles; ++tile) {
        std::uint32_t b[2];
        const std::uint32_t lane = threadIdx.x % emulation::kWarpLanes, column = lane / 4;
        for (std::uint32_t half = 0; half < 2; ++half) {
          const std::uint32_t chunk = (first_k + 8 * half) / 8 ^ column;
          const std::uint32_t at = begin + tile * 1024 + column * 128 + chunk * 16 + lane % 4 * 4;
          std::memcpy(&b[half], emulation::shared_range(at, 4, 4), 4);
        }
        mma_16x8x16(*reinterpret_cast<float(*)[4]>(product.d[tile]), product.a[0], product.a[1], product.a[2],
                    product.a[3], b[0], b[1]);
      }
    }
    pending.erase(pending.begin());
  }
}

template <std::size_t Tiles>
void wgmma_wait(float (&)[Tiles][4]) {
  take_products(0);
}
inline void wgmma_wait_for_all_but_one() { take_products(1); }

}  // namespace unweight::ptx
