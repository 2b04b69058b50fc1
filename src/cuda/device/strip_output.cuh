// SPDX-License-Identifier: Apache-2.0
//
// How a warp that has the sums of a strip's 16 features to itself writes that part of Y: by way of shared memory, since
// registers hold pairs of tokens and Y has a token's features side by side. No barrier holds up other warps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/ptx/mma.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct StripOutput {
  const MatmulOperands& params;
  std::byte* shared;
  std::uint32_t base;     ///< shared-memory address of `shared`
  std::uint32_t staging;  ///< offset of the warp's own memory, aligned to 16: staging_bytes()
  std::uint32_t lane;

  /// @param tiles  of 8 tokens that are written at a time
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t staging_bytes(std::uint32_t tiles) {
    return (tiles + 1) / 2 * 2 * 8 * 2 * format::kTileRows;
  }

  /// Writes what lies inside Y.
  /// @param first_token  of the sums' tiles, which follow one another
  /// @param wanted       bit t: tile t is written
  template <std::uint32_t Tiles>
  __device__ void store(std::uint32_t first_row, std::uint32_t first_token, const float (&sums)[Tiles][4],
                        std::uint32_t wanted = ~0U) const {
    if (first_token >= params.tokens || first_row >= params.rows) return;
    const float bias[2] = {bias_of(first_row + lane / 4), bias_of(first_row + lane / 4 + 8)};
    __syncwarp();  // nobody reads what was there before any more
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Tiles; t += 2) {
      std::uint32_t values[4];  // two tiles of 8 tokens, two of 8 features
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 4; ++i) {
        const std::uint32_t tile = t + i / 2 < Tiles ? t + i / 2 : t, half = i % 2;
        values[i] = pack(sums[tile][2 * half] + bias[half], sums[tile][2 * half + 1] + bias[half]);
      }
      ptx::store_transposed_matrices(base + staging + staged_at((t + lane / 16) * 8 + lane % 8, lane / 8 % 2), values);
    }
    __syncwarp();
    // Two neighbouring lanes have a token's 16 features: 32 bytes, a sector of the L2 cache.
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 8 * Tiles; i += device::kLanes / 2) {
      const std::uint32_t in_tiles = i + lane / 2, half = lane % 2, row = first_row + 8 * half;
      const std::byte* from = shared + staging + staged_at(in_tiles, half);
      const std::uint32_t token = first_token + in_tiles;
      std::uint16_t* to = params.y + (token * params.y_stride + row);
      const bool inside = token < params.tokens && in_tiles < 8 * Tiles && (wanted >> in_tiles / 8 & 1) != 0;
      if (inside && row + 8 <= params.rows && params.y_by_vectors) {
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      } else if (inside) {
        store_values(to, from, row);
      }
    }
  }

 private:
  static __device__ std::uint32_t pack(float low, float high) {
    return device::round_to_bf16(low) | std::uint32_t{device::round_to_bf16(high)} << 16;
  }

  [[nodiscard]] __device__ float bias_of(std::uint32_t row) const {
    return params.bias != nullptr && row < params.rows ? device::float_of_bf16(params.bias[row]) : 0;
  }

  /// Offset in the staging memory of a token's 8 features, which are neighbours: without bank conflicts both as rows of
  /// 8 tokens and in the order of tokens.
  static __device__ std::uint32_t staged_at(std::uint32_t token, std::uint32_t half) {
    return 32 * token + 16 * (half ^ (token >> 2 & 1));
  }

  /// Up to 8 features, where a vector does not fit.
  __device__ void store_values(std::uint16_t* to, const std::byte* from, std::uint32_t row) const {
    const std::uint32_t count = row < params.rows ? min(8U, params.rows - row) : 0;
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = 0; i < count; ++i) to[i] = reinterpret_cast<const std::uint16_t*>(from)[i];
  }
};

}  // namespace unweight::sm90
