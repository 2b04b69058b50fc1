// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_large_batch.cuh.
#pragma once

#include <cstdint>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/launch/matmul_operands.hpp>
#include <format/layout.hpp>
#include <unweight/cuda.hpp>

namespace unweight::launch {

/// Tokens that a block multiplies with.
inline std::uint32_t large_batch_tokens(std::uint32_t tokens) { return tokens <= 128 ? 128 : 256; }

/// For a matrix that is not empty: dealt out to pairs of blocks.
inline sm90::Deal large_batch_deal(const MatrixShape& shape, const MatmulConfig& config, std::uint32_t multiprocessors,
                                   std::uint32_t tokens) {
  using Shape = sm90::LargeBatchShape;
  constexpr std::uint64_t kPairRows = std::uint64_t{Shape::kSharers} * Shape::kStrips * format::kTileRows;
  constexpr std::uint64_t kStageCols = std::uint64_t{Shape::kStageColumns} * format::kTileCols;
  const std::uint64_t token_blocks = format::ceil_div(tokens, large_batch_tokens(tokens));
  const std::uint32_t pairs = multiprocessors / Shape::kSharers;
  return {static_cast<std::uint32_t>(token_blocks * format::ceil_div(shape.rows, kPairRows)),
          static_cast<std::uint32_t>(format::ceil_div(shape.cols, kStageCols)), pairs, config.split,
          sm90::ClusterRoom::for_pairs(pairs)};
}

/// For checked arguments and a configuration that can_implement() accepts.
inline sm90::LargeBatchParams large_batch_params(const PlacedBlob& weight, const MatmulArguments& arguments,
                                                 const MatmulConfig& config, std::uint32_t multiprocessors) {
  sm90::LargeBatchParams params{};
  const sm90::Deal deal = large_batch_deal(weight.shape, config, multiprocessors, arguments.tokens);
  set_operands(params, weight, arguments, config, multiprocessors, deal);
  params.token_blocks =
      static_cast<std::uint32_t>(format::ceil_div(arguments.tokens, large_batch_tokens(arguments.tokens)));
  params.row_items = deal.items / params.token_blocks;
  return params;
}

}  // namespace unweight::launch
