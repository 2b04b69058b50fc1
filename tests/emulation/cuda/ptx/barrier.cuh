// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/barrier.cuh.
#pragma once

#include "emulation/emulator.hpp"

namespace unweight::ptx {

inline std::byte* dynamic_shared_memory() { return emulation::shared_memory(); }
inline std::uint32_t shared_address(const void* object) {
  return static_cast<std::uint32_t>(static_cast<const std::byte*>(object) - emulation::shared_memory());
}
inline void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) { emulation::barrier_init(barrier, arrivals); }
inline void fence_barrier_init() {}
inline void barrier_arrive(std::uint32_t barrier) { emulation::barrier_arrive(barrier); }
inline void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
  emulation::barrier_expect(barrier, bytes);
  emulation::barrier_arrive(barrier);
}
inline void barrier_arrive_after_async(std::uint32_t barrier) { emulation::arrive_after_copies(barrier); }
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) { emulation::barrier_wait(barrier, parity); }
inline void named_barrier_arrive(std::uint32_t name, std::uint32_t threads) {
  emulation::arrive_at_named(name, threads);
}
inline void named_barrier_sync(std::uint32_t name, std::uint32_t threads) { emulation::sync_threads(name, threads); }

}  // namespace unweight::ptx
