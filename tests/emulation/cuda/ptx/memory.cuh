// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/memory.cuh. Blocks run one after another, in their order: a flag that is not raised
// yet never will be.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace unweight::ptx {

inline void set_flag(std::uint32_t* flag) { *flag = 1; }
inline void wait_for_flag(const std::uint32_t* flag) {
  if (*flag == 0) throw std::runtime_error("emulation: waits for a flag that only a later block raises");
}
inline float load_from_l2(const float* from) { return *from; }

}  // namespace unweight::ptx
