// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_small_batch.cuh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/small_batch_ring.cuh>
#include <cuda/launch/placed_blob.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <format/layout.hpp>
#include <unweight/cuda.hpp>

namespace unweight::launch {

/// Tokens of an item: all, as far as a block's registers hold sums for them.
inline constexpr std::uint32_t kMostItemTokens = 256;

/// Items along the tokens; one of nothing where there are none.
inline std::uint32_t token_blocks_of(std::uint32_t tokens) {
  return tokens <= kMostItemTokens ? 1 : static_cast<std::uint32_t>(format::ceil_div(tokens, kMostItemTokens));
}

/// For a matrix that is not empty; of blocks or, where two share X, of pairs.
inline sm90::SmallBatchDeal small_batch_deal(const MatrixShape& shape, const MatmulConfig& config,
                                             std::uint32_t multiprocessors, std::uint32_t tokens) {
  const std::uint32_t columns = sm90::kStageTiles / config.strips;  // tiles along K in a stage
  const std::uint32_t sharers = config.share_x ? 2 : 1;
  const std::uint64_t rows = std::uint64_t{format::kTileRows} * config.strips * sharers;
  return {static_cast<std::uint32_t>(token_blocks_of(tokens) * format::ceil_div(shape.rows, rows)),
          static_cast<std::uint32_t>(format::ceil_div(shape.cols, std::uint64_t{format::kTileCols} * columns)),
          multiprocessors / sharers, config.split, config.share_x ? 1 : sm90::SmallBatchDeal::kMostParts};
}

/// At the beginning of a workspace, a flag a block; after them partial sums.
inline std::size_t small_batch_flag_bytes(std::uint32_t multiprocessors) {
  return format::align_up(multiprocessors * sizeof(std::uint32_t), 256);
}

/// X as a matrix in memory.
inline MatrixInMemory activations(const PlacedBlob& weight, const MatmulArguments& arguments) {
  return {arguments.x, arguments.tokens, weight.shape.cols, arguments.x_stride};
}

/// A raw blob's matrix.
inline MatrixInMemory raw_matrix(const PlacedBlob& weight, std::uint64_t matrix) {
  const auto* values = weight.section<std::uint16_t>(format::kHeaderBytes);
  return {values + matrix * weight.shape.rows * weight.shape.cols, weight.shape.rows, weight.shape.cols,
          weight.shape.cols};
}

/// The first tile of a tiled blob's matrix.
inline const std::byte* matrix_tiles(const PlacedBlob& weight, std::uint64_t matrix) {
  const format::TiledGeometry g = weight.geometry();
  return weight.data + g.tiles_offset + matrix * g.strips * g.tiles_per_strip * format::kTileBytes;
}

/// For checked arguments and a configuration that can_implement() accepts.
inline sm90::SmallBatchParams small_batch_params(const PlacedBlob& weight, const MatmulArguments& arguments,
                                                 const MatmulConfig& config, std::uint32_t multiprocessors) {
  const MatrixShape& shape = weight.shape;
  const bool raw = weight.layout == BlobLayout::kRaw;
  const format::TiledGeometry g = weight.geometry();
  const std::uint64_t first_strip = arguments.matrix * g.strips, first_tile = first_strip * g.tiles_per_strip;
  sm90::SmallBatchParams params{};
  if (raw) {
    const MatrixInMemory matrix = raw_matrix(weight, arguments.matrix);
    params.raw_values = matrix.values;
    params.raw_by_tensor_copy = matrix.suits_tensor_copies();
  } else {
    params.palettes = weight.section<uint2>(g.palettes_offset);
    params.row_palettes = weight.section<std::uint8_t>(g.row_palettes_offset) + first_strip * format::kTileRows;
    params.segment_starts = weight.section<std::uint32_t>(g.segment_starts_offset);
    params.tile_starts = weight.section<std::uint16_t>(g.tile_starts_offset);
    params.exceptions = weight.section<std::uint16_t>(g.exceptions_offset);
  }
  params.x = arguments.x;
  params.bias = arguments.bias;
  params.y = arguments.y;
  params.x_stride = arguments.x_stride;
  params.y_stride = arguments.y_stride;
  params.tokens = arguments.tokens;
  params.rows = static_cast<std::uint32_t>(shape.rows);
  params.cols = static_cast<std::uint32_t>(shape.cols);
  params.first_tile = static_cast<std::uint32_t>(first_tile);
  params.strips = static_cast<std::uint32_t>(g.strips);
  params.tiles_per_strip = static_cast<std::uint32_t>(g.tiles_per_strip);
  params.token_blocks = token_blocks_of(arguments.tokens);
  params.deal = small_batch_deal(shape, config, multiprocessors, arguments.tokens);
  params.row_items = params.deal.items / params.token_blocks;
  if (params.deal.splits()) {
    auto* workspace = static_cast<std::byte*>(arguments.workspace);
    params.partial_flags = reinterpret_cast<std::uint32_t*>(workspace);
    params.partial_sums = reinterpret_cast<float*>(workspace + small_batch_flag_bytes(multiprocessors));
  }
  params.stages = config.stages;
  params.palette_count = weight.palette_count;
  params.exception_base = weight.exception_base;
  params.dependent = config.dependent_launch;
  params.y_by_vectors = is_aligned(arguments.y, 16) && arguments.y_stride % 8 == 0;
  params.x_by_tensor_copy = activations(weight, arguments).suits_tensor_copies();
  return params;
}

}  // namespace unweight::launch
