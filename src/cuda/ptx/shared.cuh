// SPDX-License-Identifier: Apache-2.0
//
// Shared memory by its address in the shared window, one wrapper an instruction. Through a pointer the compiler derives
// the address anew at each access, which takes longer than the access.
#pragma once

#include <cstdint>

namespace unweight::ptx {

/// The word at an address, a multiple of 4.
__device__ __forceinline__ std::uint32_t load_shared32(std::uint32_t address) {
  std::uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}

/// The 16 bits at an address, a multiple of 2.
__device__ __forceinline__ std::uint32_t load_shared16(std::uint32_t address) {
  std::uint16_t value;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
  return value;
}

}  // namespace unweight::ptx
