// SPDX-License-Identifier: Apache-2.0
//
// What launchers tell the multiplication kernels about operands. Host code without CUDA, so that tests on the CPU can
// give a kernel what its launcher gives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/launch/placed_blob.hpp>
#include <cuda/launch/tensor_map.hpp>
#include <format/layout.hpp>
#include <unweight/cuda.hpp>

namespace unweight::launch {

/// At the beginning of a workspace: a flag for each of up to 8 warps of a block; after them partial sums.
inline std::size_t partial_flag_bytes(std::uint32_t multiprocessors) {
  return format::align_up(8 * multiprocessors * sizeof(std::uint32_t), 256);
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

/// For checked arguments.
/// @param deal  of the kernel's work
inline void set_operands(sm90::MatmulOperands& operands, const PlacedBlob& weight, const MatmulArguments& arguments,
                         const MatmulConfig& config, std::uint32_t multiprocessors, const sm90::Deal& deal) {
  const MatrixShape& shape = weight.shape;
  const format::TiledGeometry g = weight.geometry();
  const std::uint64_t first_strip = arguments.matrix * g.strips, first_tile = first_strip * g.tiles_per_strip;
  if (weight.layout == BlobLayout::kRaw) {
    const MatrixInMemory matrix = raw_matrix(weight, arguments.matrix);
    operands.raw_values = matrix.values;
    operands.raw_by_tensor_copy = matrix.suits_tensor_copies();
  } else {
    operands.palettes = weight.section<uint2>(g.palettes_offset);
    operands.row_palettes = weight.section<std::uint8_t>(g.row_palettes_offset) + first_strip * format::kTileRows;
    operands.segment_starts = weight.section<std::uint32_t>(g.segment_starts_offset);
    operands.tile_starts = weight.section<std::uint16_t>(g.tile_starts_offset);
    operands.exceptions = weight.section<std::uint16_t>(g.exceptions_offset);
  }
  operands.x = arguments.x;
  operands.bias = arguments.bias;
  operands.y = arguments.y;
  operands.x_stride = arguments.x_stride;
  operands.y_stride = arguments.y_stride;
  operands.tokens = arguments.tokens;
  operands.rows = static_cast<std::uint32_t>(shape.rows);
  operands.cols = static_cast<std::uint32_t>(shape.cols);
  operands.first_tile = static_cast<std::uint32_t>(first_tile);
  operands.strips = static_cast<std::uint32_t>(g.strips);
  operands.tiles_per_strip = static_cast<std::uint32_t>(g.tiles_per_strip);
  operands.deal = deal;
  if (deal.splits()) {
    auto* workspace = static_cast<std::byte*>(arguments.workspace);
    operands.partial_flags = reinterpret_cast<std::uint32_t*>(workspace);
    operands.partial_sums = reinterpret_cast<float*>(workspace + partial_flag_bytes(multiprocessors));
  }
  operands.palette_count = weight.palette_count;
  operands.exception_base = weight.exception_base;
  operands.dependent = config.dependent_launch;
  operands.x_by_tensor_copy = activations(weight, arguments).suits_tensor_copies();
  operands.y_by_vectors = is_aligned(arguments.y, 16) && arguments.y_stride % 8 == 0;
}

}  // namespace unweight::launch
