// SPDX-License-Identifier: Apache-2.0
//
// A tile's values where transcoding decodes them to: 16 pieces of rows, which a warp reads 16 bytes a lane where the
// tile is whole and its rows aligned.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_staging.cuh>
#include <cuda/device/transcode_state.cuh>
#include <format/layout.hpp>

namespace unweight::device {

/// A strip's values. Of most strips a lane of a warp loads tiles as vectors of 8 values: in rows lane / 8 + 4 i those
/// of chunk lane % 8.
struct StripSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint32_t rows;           ///< inside the matrix
  std::uint32_t whole_columns;  ///< of tiles that are whole and whose rows are aligned to 16 bytes
  const uint4* vectors;         ///< the lane's of the first tile, in row lane / 8
  std::uint64_t row_step;       ///< from there to four rows further, in vectors

  __device__ StripSource(const TranscodeParams& params, std::uint64_t strip, std::uint32_t lane)
      : values(strip_values(params, strip)), rows(strip_rows(params, strip)), row_step(params.cols / 2) {
    const bool by_vectors = rows == format::kTileRows && params.cols % 8 == 0;
    whole_columns = by_vectors ? static_cast<std::uint32_t>(params.cols / format::kTileCols) : 0;
    vectors = reinterpret_cast<const uint4*>(values + lane / kRowChunks * params.cols) + lane % kRowChunks;
  }
};

/// A tile of it.
struct TileSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint64_t stride;
  std::uint32_t rows, cols;  ///< inside the matrix
  bool by_vectors;           ///< whole, and its rows aligned to 16 bytes

  __device__ TileSource(const TranscodeParams& params, const StripSource& strip, std::uint32_t column)
      : values(strip.values + std::uint64_t{column} * format::kTileCols),
        stride(params.cols),
        rows(strip.rows),
        by_vectors(column < strip.whole_columns) {
    const std::uint64_t left = params.cols - std::uint64_t{column} * format::kTileCols;
    cols = left < format::kTileCols ? static_cast<std::uint32_t>(left) : format::kTileCols;
  }
};

/// A lane's part of a tile that can be loaded as vectors.
struct TileVectors {
  static constexpr std::uint32_t kCount = 4;
  uint4 of[kCount];

  static __device__ std::uint32_t row(std::uint32_t lane, std::uint32_t i) { return lane / kRowChunks + 4 * i; }
  static __device__ std::uint32_t chunk(std::uint32_t lane) { return lane % kRowChunks; }

  /// Of another tile: anything.
  __device__ void load(const StripSource& strip, std::uint32_t column) {
    if (column >= strip.whole_columns) return;
    const uint4* const at = strip.vectors + std::uint64_t{column} * kRowChunks;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kCount; ++i) of[i] = __ldg(at + i * strip.row_step);
  }
};

}  // namespace unweight::device
