// SPDX-License-Identifier: Apache-2.0
//
// How many exception units each tile of a runtime blob has (docs/FORMAT.md, section 4), once the palettes are known,
// and so where its own begin in their segment: a block has the 64 tiles of one, a warp 8 of them, alone.
//
//   bytes  16 bits a value in. 28672 x 4096: 235 MB, 78 us at 3.0 TB/s.
//   work   some 6 instructions a value.
#pragma once

#include <cstdint>
#include <cuda/device/code_table.cuh>
#include <cuda/device/tile_source.cuh>
#include <cuda/device/transcode_state.cuh>
#include <cuda/device/warp_scan.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct CountUnitsConfig {
  static constexpr std::uint32_t kWarps = 8;
  static constexpr std::uint32_t kBlocksPerSm = 4;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
  static constexpr std::uint32_t kWarpTiles = format::kTilesPerSegment / kWarps;
};

__device__ inline std::uint32_t count_pair(const device::CodeTable& units, std::uint32_t row, std::uint32_t pair) {
  const std::uint32_t exponents = device::pair_exponents(pair);
  return units.look_up(row, exponents >> 8 & 0xff) + units.look_up(row, exponents >> 24);
}

/// A tile's units; all lanes get the same. `vectors` are the tile's.
__device__ inline std::uint32_t count_units(const device::CodeTable& units, const device::TileSource& tile,
                                            const device::TileVectors& vectors, std::uint32_t lane) {
  std::uint32_t sum = 0;
  if (tile.by_vectors) {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < device::TileVectors::kCount; ++i) {
      const std::uint32_t row = device::TileVectors::row(lane, i);
      const uint4& chunk = vectors.of[i];
      sum += count_pair(units, row, chunk.x) + count_pair(units, row, chunk.y) + count_pair(units, row, chunk.z) +
             count_pair(units, row, chunk.w);
    }
  } else {
    for (std::uint32_t row = 0; row < tile.rows; ++row) {
      for (std::uint32_t col = lane; col < tile.cols; col += device::kLanes) {
        sum += units.look_up(row, format::exponent_of(tile.values[row * tile.stride + col]));
      }
    }
  }
  return min(__reduce_add_sync(device::kAllLanes, sum), format::kEscapedTileUnits);
}

/// The tiles of a slab, by number.
struct SlabTiles {
  std::uint64_t begin, end;

  __device__ explicit SlabTiles(const device::TranscodeParams& params)
      : begin(params.first_strip * params.geometry.tiles_per_strip),
        end(params.end_strip * params.geometry.tiles_per_strip) {}
};

/// Counts the units of the slab's tiles among [first, end), a warp's; units[0] is that of `first`.
__device__ inline void count_tiles(const device::TranscodeParams& params, device::CodeTable& table, std::uint64_t first,
                                   std::uint64_t end, std::uint32_t* units, std::uint32_t lane) {
  const SlabTiles slab(params);
  std::uint64_t tile = first < slab.begin ? slab.begin : first;
  if (end > slab.end) end = slab.end;
  if (tile >= end) return;
  const auto columns = static_cast<std::uint32_t>(params.geometry.tiles_per_strip);
  std::uint64_t strip = tile / columns, strip_of_table = UINT64_MAX;
  auto column = static_cast<std::uint32_t>(tile - strip * columns);
  device::StripSource strip_source(params, strip, lane);
  device::TileSource source(params, strip_source, column);
  device::TileVectors next{};
  next.load(strip_source, column);
  for (; tile < end; ++tile) {
    if (strip != strip_of_table) {
      table.make_units(params.workspace.row_palettes + strip * format::kTileRows,
                       params.workspace.state->exception_base, lane);
      strip_of_table = strip;
    }
    const device::TileSource here = source;
    const device::TileVectors vectors = next;
    if (tile + 1 < end) {  // on its way while this one is counted
      if (++column == columns) {
        column = 0;
        ++strip;
        strip_source = device::StripSource(params, strip, lane);
      }
      source = device::TileSource(params, strip_source, column);
      next.load(strip_source, column);
    }
    const std::uint32_t count = count_units(table, here, vectors, lane);
    if (lane == 0) units[tile - first] = count;
  }
}

/// Stores where the tiles of a segment begin in it, and the segment's sum. A lane has two tiles. By a warp.
__device__ inline void store_starts(const device::TranscodeParams& params, std::uint64_t segment,
                                    const std::uint32_t* units, std::uint32_t lane) {
  const std::uint64_t tile = segment * format::kTilesPerSegment + 2 * lane, tiles = params.geometry.tiles;
  std::uint16_t* const starts = params.workspace.tile_starts;
  const std::uint32_t first = units[2 * lane], second = units[2 * lane + 1];
  const std::uint32_t sum = device::add_lower_lanes(first + second, lane);
  // The stream's end has an entry, too.
  const std::uint32_t begin = sum - first - second;
  if (tile <= tiles) starts[tile] = static_cast<std::uint16_t>(begin);
  if (tile + 1 <= tiles) starts[tile + 1] = static_cast<std::uint16_t>(begin + first);
  if (lane == device::kLanes - 1) params.workspace.segment_starts[segment] = sum;
}

/// A block a segment that has tiles of the slab. Where later slabs have some of them, the counts are kept until then.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    count_units_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::CodeTable tables[Config::kWarps];
  __shared__ std::uint32_t units[format::kTilesPerSegment];
  device::begin_kernel();
  const std::uint32_t warp = device::warp_number(), lane = threadIdx.x % device::kLanes;
  const SlabTiles slab(params);
  const std::uint64_t segment = slab.begin / format::kTilesPerSegment + blockIdx.x;
  const std::uint64_t first = segment * format::kTilesPerSegment, end = first + format::kTilesPerSegment;
  std::uint16_t* const starts = params.workspace.tile_starts;
  if (threadIdx.x < format::kTilesPerSegment) {
    units[threadIdx.x] = first + threadIdx.x < slab.begin ? starts[first + threadIdx.x] : 0;
  }
  __syncthreads();
  const std::uint32_t mine = warp * Config::kWarpTiles;
  count_tiles(params, tables[warp], first + mine, first + mine + Config::kWarpTiles, units + mine, lane);
  __syncthreads();
  if (slab.end < end && slab.end < params.geometry.tiles) {
    if (threadIdx.x < format::kTilesPerSegment && first + threadIdx.x < slab.end) {
      starts[first + threadIdx.x] = static_cast<std::uint16_t>(units[threadIdx.x]);
    }
  } else if (warp == 0) {
    store_starts(params, segment, units, lane);
  }
}

}  // namespace unweight::sm90
