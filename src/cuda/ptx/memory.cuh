// SPDX-License-Identifier: Apache-2.0
//
// Global memory between blocks of a grid, one wrapper an instruction (PTX ISA, "Memory Consistency Model"). Flags are
// words that are 0 or 1.
#pragma once

#include <cstdint>

namespace unweight::ptx {

/// Raises a flag: what this thread has written or, over a barrier, seen written, comes before it.
__device__ __forceinline__ void set_flag(std::uint32_t* flag) {
  asm volatile("fence.acq_rel.gpu;\n\tst.relaxed.gpu.global.u32 [%0], 1;" ::"l"(flag) : "memory");
}

/// Waits until a flag is raised.
__device__ __forceinline__ void wait_for_flag(const std::uint32_t* flag) {
  std::uint32_t raised;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(raised) : "l"(flag) : "memory");
  } while (raised == 0);
}

/// Counts one of `count` arrivals and returns how many came before it; after the last, the counter is 0 again. What
/// this thread has written or, over a barrier, seen written, comes before it, and the last one sees it all.
__device__ __forceinline__ std::uint32_t count_arrival(std::uint32_t* counter, std::uint32_t count) {
  std::uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(count - 1)
               : "memory");
  return before;
}

/// Loads that do not look into the L1 cache, which other blocks' stores do not reach.
__device__ __forceinline__ void load_from_l2(float (&values)[1], const float* from) {
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(values[0]) : "l"(from) : "memory");
}
__device__ __forceinline__ void load_from_l2(float (&values)[2], const float* from) {
  asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];" : "=f"(values[0]), "=f"(values[1]) : "l"(from) : "memory");
}
__device__ __forceinline__ void load_from_l2(float (&values)[4], const float* from) {
  asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(values[0]), "=f"(values[1]), "=f"(values[2]), "=f"(values[3])
               : "l"(from)
               : "memory");
}

}  // namespace unweight::ptx
