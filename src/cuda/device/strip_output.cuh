// SPDX-License-Identifier: Apache-2.0
//
// Where a warp has a strip's sums all to itself, it writes that part of Y itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_block.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Tiles of 8 tokens that are written at a time: a token a lane.
inline constexpr std::uint32_t kGroupTiles = 4;
/// A lane's sums of such a group.
using TokenGroup = float[kGroupTiles][4];

/// A strip's part of an item's Y. By a whole warp.
template <class Config>
struct StripOutput {
  using Traits = SmallBatchTraits<Config>;
  static_assert(Config::kTokenTiles % kGroupTiles == 0 && 2 * format::kTileRows * device::kLanes <= Traits::kWarpBytes);

  const SmallBatchBlock<Config>& block;
  std::uint32_t first_row, rows, first_token;
  float bias[2] = {};

  __device__ StripOutput(const SmallBatchBlock<Config>& block_in, std::uint32_t item, std::uint32_t strip)
      : block(block_in) {
    const SmallBatchParams& params = block.params;
    const auto place = block.locate(item);
    first_token = place.token;
    first_row = place.rows * Traits::kItemRows + strip * format::kTileRows;
    rows = first_row < params.rows ? min(format::kTileRows, params.rows - first_row) : 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t half = 0; half < 2; ++half) {
      const std::uint32_t row = block.lane / 4 + 8 * half;
      if (params.bias != nullptr && row < rows) bias[half] = device::float_of_bf16(params.bias[first_row + row]);
    }
  }

  /// By way of the warp's own memory, so that a lane stores 16 rows of a token: 32 bytes.
  /// @param staging_place  where that memory begins
  __device__ void store(std::uint32_t staging_place, std::uint32_t group, const TokenGroup& sums) const {
    const SmallBatchParams& params = block.params;
    const std::uint32_t lane = block.lane;
    auto* staged = reinterpret_cast<std::uint16_t*>(block.shared + staging_place);  // [32 tokens][16 rows]
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 4 * kGroupTiles; ++i) {
      const std::uint32_t token = i / 4 * 8 + 2 * (lane & 3) + i % 2, half = i / 2 % 2;
      staged[token * format::kTileRows + lane / 4 + 8 * half] = device::round_to_bf16(sums[i / 4][i % 4] + bias[half]);
    }
    __syncwarp();
    const std::uint32_t token = first_token + group * device::kLanes + lane;
    const std::uint16_t* from = staged + lane * format::kTileRows;
    std::uint16_t* to = params.y + std::uint64_t{token} * params.y_stride + first_row;
    if (token < params.tokens && rows == format::kTileRows && params.y_by_vectors) {
      reinterpret_cast<uint4*>(to)[0] = reinterpret_cast<const uint4*>(from)[0];
      reinterpret_cast<uint4*>(to)[1] = reinterpret_cast<const uint4*>(from)[1];
    } else if (token < params.tokens) {
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t row = 0; row < rows; ++row) to[row] = from[row];
    }
    __syncwarp();
  }
};

}  // namespace unweight::sm90
