// SPDX-License-Identifier: Apache-2.0
//
// Parameters of kernels/sm90_gather_rows.cuh.
#pragma once

#include <cstdint>
#include <cuda/kernels/sm90_gather_rows.cuh>
#include <cuda/launch/placed_blob.hpp>
#include <span>

namespace unweight::launch {

/// For checked arguments.
inline sm90::GatherRowsParams gather_rows_params(const PlacedBlob& blob, std::span<const std::int64_t> row_numbers,
                                                 std::uint16_t* values, std::uint64_t row_stride) {
  sm90::GatherRowsParams params{};
  params.row_numbers = row_numbers.data();
  params.row_count = row_numbers.size();
  params.values = values;
  params.row_stride = row_stride;
  params.rows = blob.shape.batch * blob.shape.rows;
  params.matrix_rows = static_cast<std::uint32_t>(blob.shape.rows);
  params.row_tiles = static_cast<std::uint32_t>(format::ceil_div(blob.shape.cols, std::uint64_t{format::kTileCols}));
  params.cols = static_cast<std::uint32_t>(blob.shape.cols);
  params.wide_stores = is_aligned(values, 4) && row_stride % 2 == 0;
  if (blob.layout == BlobLayout::kRaw) {
    params.raw = blob.section<std::uint16_t>(format::kHeaderBytes);
    return params;
  }
  const format::TiledGeometry g = blob.geometry();
  params.tiles = blob.section<std::byte>(g.tiles_offset);
  params.palettes = blob.section<uint2>(g.palettes_offset);
  params.row_palettes = blob.section<std::uint8_t>(g.row_palettes_offset);
  params.segment_starts = blob.section<std::uint32_t>(g.segment_starts_offset);
  params.tile_starts = blob.section<std::uint16_t>(g.tile_starts_offset);
  params.exceptions = blob.section<std::uint16_t>(g.exceptions_offset);
  params.strips = static_cast<std::uint32_t>(g.strips);
  params.exception_base = blob.exception_base;
  return params;
}

}  // namespace unweight::launch
