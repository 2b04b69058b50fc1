// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_small_batch.cuh.
#pragma once

#include <cstdint>
#include <cuda/device/small_batch_ring.cuh>
#include <cuda/launch/matmul_operands.hpp>
#include <format/layout.hpp>
#include <unweight/cuda.hpp>

namespace unweight::launch {

/// Most tokens of kernels/sm90_small_batch.cuh.
inline constexpr std::uint32_t kMostSmallBatchTokens = 64;
/// With items of so many strips more, for which there is no kernel for fewer.
inline constexpr std::uint32_t kWideStrips = 12, kMostWideTokens = 128;

/// Whether the kernel for few tokens is meant, which has a ring of any depth; otherwise the one for many.
constexpr bool is_small_batch(std::uint32_t tokens, const MatmulConfig& config) { return config.uses_stages(tokens); }
static_assert(is_small_batch(kMostWideTokens, {.strips = kWideStrips}) &&
              !is_small_batch(kMostWideTokens + 1, {.strips = kWideStrips}) &&
              is_small_batch(kMostSmallBatchTokens, {}) && !is_small_batch(kMostSmallBatchTokens + 1, {}));

/// For a matrix that is not empty.
inline sm90::Deal small_batch_deal(const MatrixShape& shape, const MatmulConfig& config,
                                   std::uint32_t multiprocessors) {
  const std::uint32_t columns = sm90::stage_tiles(config.strips) / config.strips;  // tiles along K in a stage
  return {static_cast<std::uint32_t>(format::ceil_div(shape.rows, std::uint64_t{format::kTileRows} * config.strips)),
          static_cast<std::uint32_t>(format::ceil_div(shape.cols, std::uint64_t{format::kTileCols} * columns)),
          multiprocessors, config.split, sm90::ClusterRoom::for_blocks(multiprocessors)};
}

/// For checked arguments and a configuration that can_implement() accepts.
inline sm90::SmallBatchParams small_batch_params(const PlacedBlob& weight, const MatmulArguments& arguments,
                                                 const MatmulConfig& config, std::uint32_t multiprocessors) {
  sm90::SmallBatchParams params{};
  set_operands(params, weight, arguments, config, multiprocessors,
               small_batch_deal(weight.shape, config, multiprocessors));
  params.stages = config.stages;
  params.x_tile_rows = (arguments.tokens + 7) / 8 * 8;
  return params;
}

}  // namespace unweight::launch
