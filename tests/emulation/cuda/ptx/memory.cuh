// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/memory.cuh. Blocks run one after another, in their order: a flag that is not raised
// yet never will be.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace unweight::ptx {

inline void set_flag(std::uint32_t* flag) { *flag = 1; }
inline void wait_for_flag(const std::uint32_t* flag) {
  if (*flag == 0) throw std::runtime_error("emulation: waits for a flag that only a later block raises");
}
inline std::uint32_t count_arrival(std::uint32_t* counter, std::uint32_t count) {
  const std::uint32_t before = *counter;
  *counter = before >= count - 1 ? 0 : before + 1;
  return before;
}
template <std::size_t Count>
void load_from_l2(float (&values)[Count], const float* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % sizeof values != 0) {
    throw std::runtime_error("emulation: a load that is not aligned to its size");
  }
  std::copy_n(from, Count, values);
}

}  // namespace unweight::ptx
