// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/shared.cuh.
#pragma once

#include "emulation/emulator.hpp"
#include <cstdint>
#include <cstring>

namespace unweight::ptx {

template <class T>
T load_shared(std::uint32_t address) {
  T value;
  std::memcpy(&value, emulation::shared_range(address, sizeof value, sizeof value), sizeof value);
  return value;
}

inline std::uint32_t load_shared32(std::uint32_t address) { return load_shared<std::uint32_t>(address); }
inline std::uint32_t load_shared16(std::uint32_t address) { return load_shared<std::uint16_t>(address); }

}  // namespace unweight::ptx
