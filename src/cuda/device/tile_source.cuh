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

/// A strip's values. It takes a division to find them, so once for many tiles.
struct StripSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint32_t rows;           ///< inside the matrix

  __device__ StripSource(const TranscodeParams& params, std::uint64_t strip)
      : values(strip_values(params, strip)), rows(strip_rows(params, strip)) {}
};

/// Where a tile's values are.
struct TileSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint64_t stride;
  std::uint32_t rows, cols;  ///< inside the matrix
  bool by_vectors;           ///< whole, and its rows aligned to 16 bytes

  __device__ TileSource(const TranscodeParams& params, const StripSource& strip, std::uint32_t column)
      : values(strip.values + std::uint64_t{column} * format::kTileCols), stride(params.cols), rows(strip.rows) {
    const std::uint64_t left = params.cols - std::uint64_t{column} * format::kTileCols;
    cols = left < format::kTileCols ? static_cast<std::uint32_t>(left) : format::kTileCols;
    by_vectors = rows == format::kTileRows && cols == format::kTileCols && params.cols % 8 == 0;
  }
};

/// A lane's part of a whole tile: a chunk of 16 bytes of each fourth row.
struct TileVectors {
  static constexpr std::uint32_t kCount = 4;
  uint4 of[kCount];

  static __device__ std::uint32_t row(std::uint32_t lane, std::uint32_t i) { return lane / kRowChunks + 4 * i; }
  static __device__ std::uint32_t chunk(std::uint32_t lane) { return lane % kRowChunks; }

  /// Of a tile that is not whole: zeros.
  __device__ void load(const TileSource& tile, std::uint32_t lane) {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kCount; ++i) {
      of[i] = make_uint4(0, 0, 0, 0);
      if (!tile.by_vectors) continue;
      of[i] = __ldg(reinterpret_cast<const uint4*>(tile.values + row(lane, i) * tile.stride) + chunk(lane));
    }
  }
};

}  // namespace unweight::device
