// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_decode.cuh.
#pragma once

#include <cstdint>
#include <cuda/kernels/sm90_decode.cuh>
#include <cuda/launch/placed_blob.hpp>

namespace unweight::launch {

/// For a tiled blob and checked arguments.
inline sm90::DecodeParams decode_params(const PlacedBlob& blob, std::uint16_t* values, std::uint64_t row_stride) {
  const format::TiledGeometry g = blob.geometry();
  return {.tiles = blob.section<std::byte>(g.tiles_offset),
          .palettes = blob.section<uint2>(g.palettes_offset),
          .row_palettes = blob.section<std::uint8_t>(g.row_palettes_offset),
          .segment_starts = blob.section<std::uint32_t>(g.segment_starts_offset),
          .tile_starts = blob.section<std::uint16_t>(g.tile_starts_offset),
          .exceptions = blob.section<std::uint16_t>(g.exceptions_offset),
          .values = values,
          .row_stride = row_stride,
          .tile_count = static_cast<std::uint32_t>(g.tiles),
          .tiles_per_strip = static_cast<std::uint32_t>(g.tiles_per_strip),
          .strips = static_cast<std::uint32_t>(g.strips),
          .rows = static_cast<std::uint32_t>(blob.shape.rows),
          .cols = static_cast<std::uint32_t>(blob.shape.cols),
          .exception_base = blob.exception_base,
          .wide_stores = is_aligned(values, 16) && row_stride % 8 == 0};
}

}  // namespace unweight::launch
