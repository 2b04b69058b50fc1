// SPDX-License-Identifier: Apache-2.0
//
// Some rows of a blob -> bf16 rows, in the order asked for: the look-up of an embedding whose table is packed.
//
//   in     row_numbers  any order, repeated ones too; of the tensor seen as one matrix of batch * N rows
//          blob         as in sm90_decode.cuh, or raw values
//   out    values       [row_count, K], any row stride >= K
//
//   bytes  of a tiled row: 64 sign+mantissa bytes, 48 of codes and the tile's exceptions (26) for 64 values, in sectors
//          of 32 bytes, of which sign+mantissa uses half: about 230 bytes a tile and row. 8192 rows of 4096 values: 120
//          MB in, 67 MB out, 60 us at the speed of a copy; one row: the latency of five dependent loads.
//
// A warp decodes one row of one tile: 16 lanes have a group of four values each, all 32 walk the tile's list together,
// and entries of that row are patched in the warp's 128 bytes of shared memory. Warps work alone.
//
// A row number outside of the tensor gives a row of NaN (0x7fff), as a kernel cannot return an error.
//
// Limits: those of sm90_decode.cuh, and 2^31 blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/list_step.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct GatherRowsConfig {
  static constexpr std::uint32_t kWarps = 8;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
};

/// Where things lie. All addresses are device memory.
struct GatherRowsParams {
  const std::int64_t* row_numbers;
  std::uint16_t* values;
  std::uint64_t row_stride;  ///< in values, between rows of `values`
  const std::uint16_t* raw;  ///< values of a raw blob; null for a tiled one, which alone uses the members below
  const std::byte* tiles;
  const uint2* palettes;
  const std::uint8_t* row_palettes;
  const std::uint32_t* segment_starts;
  const std::uint16_t* tile_starts;
  const std::uint16_t* exceptions;
  std::uint64_t row_count;    ///< of row_numbers
  std::uint64_t rows;         ///< of the tensor, of all matrices
  std::uint32_t matrix_rows;  ///< of one matrix
  std::uint32_t strips;       ///< of one matrix
  std::uint32_t row_tiles;    ///< pieces of 64 columns in a row, the last one shorter
  std::uint32_t cols;
  std::uint8_t exception_base;
  bool wide_stores;  ///< address and stride of `values` are multiples of 4 bytes
};

template <class Config>
struct alignas(4) GatherRowsStorage {
  std::uint16_t staging[Config::kWarps][format::kTileCols];
};

/// One row of one tile, by a warp.
template <class Config>
struct RowGatherer {
  static constexpr std::uint16_t kOutside = 0x7fff;
  static constexpr std::uint32_t kGroupLanes = 16;  ///< lanes that hold four of the row's 64 values

  const GatherRowsParams& params;
  std::uint16_t* staging;  ///< the warp's 64 values
  std::uint32_t lane;

  __device__ void run(std::uint64_t item) const {
    const std::uint64_t index = item / params.row_tiles;
    const auto column_tile = static_cast<std::uint32_t>(item - index * params.row_tiles);
    const std::int64_t number = params.row_numbers[index];
    std::uint16_t* out = params.values + index * params.row_stride + std::uint64_t{column_tile} * format::kTileCols;
    const std::uint32_t cols = min(params.cols - column_tile * format::kTileCols, format::kTileCols);
    // A negative number is a huge one here.
    const auto row = static_cast<std::uint64_t>(number);
    if (row >= params.rows) {
      write(out, cols, kOutside, kOutside);
    } else if (params.raw != nullptr) {
      const std::uint16_t* from = params.raw + row * params.cols + std::uint64_t{column_tile} * format::kTileCols;
      const std::uint32_t col = 2 * lane;
      write(out, cols, col < cols ? from[col] : kOutside, col + 1 < cols ? from[col + 1] : kOutside);
    } else {
      decode(row, column_tile);
      write(out, cols, staging[2 * lane], staging[2 * lane + 1]);
    }
  }

 private:
  /// Leaves the values in the staging memory.
  __device__ void decode(std::uint64_t row, std::uint32_t column_tile) const {
    const std::uint64_t matrix = row / params.matrix_rows;
    const auto matrix_row = static_cast<std::uint32_t>(row - matrix * params.matrix_rows);
    const std::uint64_t strip = matrix * params.strips + matrix_row / format::kTileRows;
    const std::uint32_t tile_row = matrix_row % format::kTileRows;
    const std::uint64_t tile = strip * params.row_tiles + column_tile;

    std::uint32_t bound = 0;
    if (lane < 2) {
      bound = params.segment_starts[(tile + lane) / format::kTilesPerSegment] + params.tile_starts[tile + lane];
    }
    const std::uint32_t begin = __shfl_sync(device::kAllLanes, bound, 0);
    const std::uint32_t count = __shfl_sync(device::kAllLanes, bound, 1) - begin;
    const bool escaped = count == format::kEscapedTileUnits;
    if (lane < kGroupLanes) stage_group(params.tiles + tile * format::kTileBytes, strip, tile_row, begin, escaped);
    __syncwarp();
    if (!escaped) patch(begin, count, tile_row);
  }

  /// Four values of the row: lane l has those of the tile's lane 4 (row % 8) + l % 4 in step l / 4.
  __device__ void stage_group(const std::byte* tile, std::uint64_t strip, std::uint32_t tile_row, std::uint32_t begin,
                              bool escaped) const {
    const std::uint32_t owner = 4 * (tile_row % 8) + lane % 4, group = 2 * (lane / 4) + tile_row / 8;
    const std::uint32_t sign_mantissa = *reinterpret_cast<const std::uint32_t*>(
        tile + group / 4 * (format::kTileValues / 2) + owner * 16 + group % 4 * 4);
    std::uint32_t rotated = 0;
    if (escaped) {
      const std::uint16_t* plane = params.exceptions + begin + device::plane_unit(owner, group);
      rotated = plane[0] | std::uint32_t{plane[1]} << 16;
    } else {
      const uint2 codes01 = *(reinterpret_cast<const uint2*>(tile + format::kCodes01Offset) + owner);
      const std::uint32_t codes2 = *(reinterpret_cast<const std::uint32_t*>(tile + format::kCodes2Offset) + owner);
      const uint2 palette = params.palettes[params.row_palettes[strip * format::kTileRows + tile_row]];
      const std::uint32_t codes[3] = {codes01.x, codes01.y, codes2};
      const device::LaneSelectors selectors = device::unpack_selectors(codes);
      // Not an index: the words are registers.
      const std::uint32_t low = group < 2 ? selectors.words[0] : selectors.words[1];
      const std::uint32_t high = group < 6 ? selectors.words[2] : selectors.words[3];
      rotated = device::byte_permute(palette.x, palette.y, (group < 4 ? low : high) >> 16 * (group & 1));
    }
    std::uint32_t first = 0, second = 0;
    device::join_group(sign_mantissa, rotated, first, second);
    *reinterpret_cast<std::uint32_t*>(staging + device::pair_col(owner, 2 * group)) = first;
    *reinterpret_cast<std::uint32_t*>(staging + device::pair_col(owner, 2 * group + 1)) = second;
  }

  /// Applies the list's entries of that row. In an invalid list two entries may name one value, and either may win.
  __device__ void patch(std::uint32_t begin, std::uint32_t count, std::uint32_t tile_row) const {
    for (std::uint32_t done = 0; done < count;) {
      const std::uint32_t left = count - done;
      const std::uint16_t unit = lane < left ? params.exceptions[std::uint64_t{begin} + done + lane] : std::uint16_t{0};
      const device::ListStep step = device::read_list_step(unit, left, lane, params.exception_base);
      const std::uint32_t position = format::entry_position(unit);
      if (step.has_entry && format::position_row(position) == tile_row) {
        std::uint16_t& value = staging[format::position_col(position)];
        value = device::with_exponent(value, step.exponent);
      }
      done += step.units_read;
      __syncwarp();
    }
  }

  /// Each lane's two neighbouring values, without what lies outside the matrix.
  __device__ void write(std::uint16_t* out, std::uint32_t cols, std::uint16_t first, std::uint16_t second) const {
    const std::uint32_t col = 2 * lane;
    if (params.wide_stores && col + 1 < cols) {
      *reinterpret_cast<std::uint32_t*>(out + col) = first | std::uint32_t{second} << 16;
      return;
    }
    if (col < cols) out[col] = first;
    if (col + 1 < cols) out[col + 1] = second;
  }
};

template <class Config>
__global__ void __launch_bounds__(Config::kThreads)
    gather_rows_kernel(const __grid_constant__ GatherRowsParams params) {
  __shared__ GatherRowsStorage<Config> storage;
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  const std::uint64_t item = std::uint64_t{blockIdx.x} * Config::kWarps + warp;
  if (item >= params.row_count * params.row_tiles) return;
  RowGatherer<Config>{params, storage.staging[warp], lane}.run(item);
}

}  // namespace unweight::sm90
