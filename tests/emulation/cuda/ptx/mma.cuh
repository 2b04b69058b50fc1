// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/mma.cuh. Sums are float, in the order of the inner dimension: the hardware's order
// and width within one instruction are its own.
#pragma once

#include "emulation/emulator.hpp"
#include <array>
#include <cstring>

namespace unweight::ptx {

/// Value `index` of a register's two.
inline float bf16_in(std::uint32_t word, std::uint32_t index) {
  const std::uint32_t bits = index == 0 ? word << 16 : word & 0xffff0000U;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void mma_16x8x16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                        std::uint32_t b0, std::uint32_t b1) {
  using Registers = std::array<std::uint32_t, 6>;  // a0..a3, b0, b1
  const Registers mine{a0, a1, a2, a3, b0, b1};
  std::array<Registers, emulation::kWarpLanes> all;
  std::memcpy(all.data(), emulation::exchange(mine.data(), sizeof mine), sizeof all);
  const std::uint32_t lane = threadIdx.x % emulation::kWarpLanes;
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::uint32_t row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
    for (std::uint32_t k = 0; k < 16; ++k) {
      // PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
      const std::uint32_t a = all[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
      const std::uint32_t b = all[col * 4 + k % 8 / 2][4 + k / 8];
      d[i] += bf16_in(a, k % 2) * bf16_in(b, k % 2);
    }
  }
}

inline void load_matrices(std::uint32_t (&r)[4], std::uint32_t address) {
  std::array<std::uint32_t, emulation::kWarpLanes> rows;
  std::memcpy(rows.data(), emulation::exchange(&address, sizeof address), sizeof rows);
  const std::uint32_t lane = threadIdx.x % emulation::kWarpLanes;
  for (std::uint32_t i = 0; i < 4; ++i) {
    std::memcpy(&r[i], emulation::shared_range(rows[8 * i + lane / 4], 16, 16) + lane % 4 * 4, 4);
  }
}

inline void store_transposed_matrices(std::uint32_t address, const std::uint32_t (&r)[4]) {
  const std::uint32_t lane = threadIdx.x % emulation::kWarpLanes;
  std::array<std::uint32_t, emulation::kWarpLanes> rows;
  std::memcpy(rows.data(), emulation::exchange(&address, sizeof address), sizeof rows);
  for (std::uint32_t i = 0; i < 4; ++i) {
    for (std::uint32_t half = 0; half < 2; ++half) {  // of row lane / 4, columns 2 (lane % 4) and the next
      const auto value = static_cast<std::uint16_t>(r[i] >> 16 * half);
      std::byte* to = emulation::shared_range(rows[8 * i + lane % 4 * 2 + half], 16, 16) + lane / 4 * 2;
      std::memcpy(to, &value, sizeof value);
    }
  }
  __syncwarp();
}

}  // namespace unweight::ptx
