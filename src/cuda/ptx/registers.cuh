// SPDX-License-Identifier: Apache-2.0
//
// A word to the compiler, no instruction.
#pragma once

#include <cstdint>

namespace unweight::ptx {

/// Hides where a value comes from, so that it is kept in a register rather than derived again at each use.
__device__ __forceinline__ void keep(std::uint32_t& value) { asm volatile("" : "+r"(value)); }

}  // namespace unweight::ptx
