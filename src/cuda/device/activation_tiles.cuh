// SPDX-License-Identifier: Apache-2.0
//
// X in shared memory as tensor copies lay it: tiles of 64 columns, a token a row of 128 bytes, with the 128-byte
// swizzle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct TokenRange {
  std::uint32_t begin, count;
};

/// By ordinary loads, where a tensor copy cannot address X; zeros outside of it. By a whole warp.
/// @param to  tiles of `tokens.count` tokens each, a multiple of 8, one after the other
__device__ inline void store_x_tiles(const MatmulOperands& operands, std::byte* to, TokenRange tokens,
                                     std::uint32_t first_tile, std::uint32_t tiles, std::uint32_t lane) {
  UNWEIGHT_NO_UNROLL
  for (std::uint32_t i = lane; i < tiles * format::kTileCols * tokens.count; i += device::kLanes) {
    const std::uint32_t k = i % format::kTileCols, line = i / format::kTileCols;
    const std::uint32_t token = line % tokens.count, tile = line / tokens.count;
    const std::uint32_t col = (first_tile + tile) * format::kTileCols + k;
    const std::uint64_t row = tokens.begin + token;
    const bool inside = row < operands.tokens && col < operands.cols;
    const std::uint16_t value = inside ? operands.x[row * operands.x_stride + col] : std::uint16_t{0};
    *reinterpret_cast<std::uint16_t*>(to + line * 128 + ((k / 8 ^ (token & 7)) * 16) + k % 8 * 2) = value;
  }
}

}  // namespace unweight::sm90
