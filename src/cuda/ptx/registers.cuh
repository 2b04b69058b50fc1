// SPDX-License-Identifier: Apache-2.0
//
// Registers (PTX ISA, "setmaxnreg").
#pragma once

#include <cstdint>

namespace unweight::ptx {

/// Hides where a value comes from, so that it is kept in a register rather than derived again at each use.
__device__ __forceinline__ void keep(std::uint32_t& value) { asm volatile("" : "+r"(value)); }

/// The warpgroup's threads give up registers, down to so many each, a multiple of 8.
template <std::uint32_t Count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

/// The warpgroup's threads take registers, up to so many each, as soon as others have given them.
template <std::uint32_t Count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

}  // namespace unweight::ptx
