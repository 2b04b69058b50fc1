// SPDX-License-Identifier: Apache-2.0
//
// A warp's A operands from weights that are not compressed.
#pragma once

#include <cstdint>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/device/tile_fragments.cuh>
#include <cuda/ptx/mma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

inline constexpr std::uint32_t kRawTileBytes = 2 * format::kTileValues;

/// A tile that a tensor copy has brought.
/// @param tile  its shared-memory address, a multiple of 1024 but for whole tiles
__device__ inline device::TileFragments load_raw(std::uint32_t tile, std::uint32_t lane) {
  device::TileFragments fragments;
  const std::uint32_t row = lane % 16;
  UNWEIGHT_UNROLL
  for (std::uint32_t s = 0; s < 4; ++s) {
    ptx::load_matrices(fragments.a[s], tile + row * 128 + ((2 * s + lane / 16) ^ (row & 7)) * 16);
  }
  return fragments;
}

/// A tile where it lies, for rows that a tensor copy cannot address. Zeros outside the matrix.
__device__ inline device::TileFragments fetch_raw(const MatmulOperands& operands, std::uint32_t strip,
                                                  std::uint32_t column, std::uint32_t lane) {
  device::TileFragments fragments;
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < 16; ++i) {
    const std::uint32_t row = strip * format::kTileRows + lane / 4 + 8 * (i & 1);
    const std::uint32_t col = column * format::kTileCols + 16 * (i / 4) + 8 * (i / 2 & 1) + 2 * (lane & 3);
    std::uint32_t pair = 0;
    if (row < operands.rows) {
      const std::uint16_t* at = operands.raw_values + std::uint64_t{row} * operands.cols + col;
      if (col < operands.cols) pair = at[0];
      if (col + 1 < operands.cols) pair |= std::uint32_t{at[1]} << 16;
    }
    fragments.a[i / 4][i % 4] = pair;
  }
  return fragments;
}

}  // namespace unweight::sm90
