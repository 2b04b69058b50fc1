// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/registers.cuh.
#pragma once

#include <cstdint>

namespace unweight::ptx {

inline void keep(std::uint32_t&) {}
template <std::uint32_t>
void give_registers() {}
template <std::uint32_t>
void take_registers() {}

}  // namespace unweight::ptx
