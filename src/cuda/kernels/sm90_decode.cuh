// SPDX-License-Identifier: Apache-2.0
//
// Full decode: tiles of a blob -> bf16 W[batch, N, K], row-major, straight from the blob's bytes.
//
//   in     tiles       1408 B each, 128-byte aligned: 16 rows x 64 columns, strip after strip (docs/FORMAT.md)
//          exceptions  16-bit entries, 13 a tile on trained weights; 512 units where a tile is escaped
//          tables      2.06 B a tile (where its exceptions begin), 1 B a row (its palette), 8 B a palette
//   out    values      any row stride >= K; 16-byte stores where address and stride allow it
//
//   bytes  11.23 bits in + 16 bits out a value. 28672 x 4096: 165 MB + 235 MB, 133 us at the 3.0 TB/s of a copy: the
//          floor.
//   work   about 11 instructions a value; at the floor a multiprocessor issues 34. Only memory matters.
//
// Every warp works alone: no producer, no barrier wider than a warp. A warp takes kTilesPerWarp tiles and asks for all
// their bytes before it uses any, so that a multiprocessor's warps keep several tens of KB of loads in flight:
//
//   global                     registers                          shared, 2 KiB a warp           global
//   sign+mantissa, codes  -->  32 values a lane, mma order  -->   16 rows x 64, swizzled  -->    128-byte row pieces
//   entries (1 a lane)    ------------------------------------->  patches its exponent
//
// Neighbouring warps take neighbouring tiles, and thread blocks are dispatched in order, so the chip reads one region
// and writes the same few rows at a time.
//
// Limits: tiles, rows and columns below 2^31.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/list_step.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/tile_staging.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// The best of 21 variants on large matrices and within 0.2% of the best on small ones (docs/kernels.md). 2, 4 or 16
/// warps, 1, 3 or 4 tiles a warp, neighbouring tiles for a warp, and evict-first loads are slower, by up to 7%.
struct DecodeConfig {
  static constexpr std::uint32_t kWarps = 8;
  static constexpr std::uint32_t kTilesPerWarp = 2;
  static constexpr std::uint32_t kBlocksPerSm = 4;  ///< caps registers at 64
};

/// Where things lie. All addresses are device memory.
struct DecodeParams {
  const std::byte* tiles;  ///< 128-byte aligned
  const uint2* palettes;
  const std::uint8_t* row_palettes;
  const std::uint32_t* segment_starts;
  const std::uint16_t* tile_starts;
  const std::uint16_t* exceptions;
  std::uint16_t* values;
  std::uint64_t row_stride;  ///< in values, between rows of `values`
  std::uint32_t tile_count;
  std::uint32_t tiles_per_strip;
  std::uint32_t strips;  ///< of one matrix
  std::uint32_t rows;    ///< of one matrix
  std::uint32_t cols;
  std::uint8_t exception_base;
  bool wide_stores;  ///< address and stride of `values` are multiples of 16 bytes
};

template <class Config>
struct DecodeTraits {
  static constexpr std::uint32_t kThreads = Config::kWarps * device::kLanes;
  static constexpr std::uint32_t kTilesPerBlock = Config::kWarps * Config::kTilesPerWarp;
  static_assert(2 * Config::kTilesPerWarp <= device::kLanes, "one load of a warp fetches all its exception ranges");

  /// First tile of a warp; the next ones follow at a distance of kWarps, so that a block's warps advance side by side.
  static __device__ std::uint32_t first_tile(std::uint32_t block, std::uint32_t warp) {
    return block * kTilesPerBlock + warp;
  }
};

template <class Config>
struct alignas(128) DecodeStorage {
  std::uint16_t staging[Config::kWarps][format::kTileValues];
};

/// All that one lane needs of a tile.
struct TileInput {
  device::LaneTile lane_tile;
  std::uint32_t exceptions_begin;
  std::uint32_t exception_units;
  std::uint16_t unit;  ///< the lane's of the first 32 exception units, where there is one
};

/// Fetches tiles and what belongs to them.
template <class Config>
struct Loader {
  const DecodeParams& params;
  std::uint32_t lane;

  /// Lane 2 i + e: unit at which the exceptions of the warp's tile i begin (e = 0) and end (e = 1).
  __device__ std::uint32_t exception_bounds(std::uint32_t first_tile) const {
    const std::uint32_t tile = first_tile + lane / 2 * Config::kWarps + lane % 2;
    if (lane >= 2 * Config::kTilesPerWarp || tile > params.tile_count) return 0;
    return params.segment_starts[tile / format::kTilesPerSegment] + params.tile_starts[tile];
  }

  __device__ device::LaneTile lane_tile(std::uint32_t tile) const {
    const std::byte* at = params.tiles + std::uint64_t{tile} * format::kTileBytes;
    const auto* halves = reinterpret_cast<const uint4*>(at);
    const uint4 first = __ldg(halves + lane);
    const uint4 second = __ldg(halves + device::kLanes + lane);
    const uint2 codes01 = __ldg(reinterpret_cast<const uint2*>(at + format::kCodes01Offset) + lane);
    const std::uint32_t codes2 = __ldg(reinterpret_cast<const std::uint32_t*>(at + format::kCodes2Offset) + lane);
    return {{first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w},
            {codes01.x, codes01.y, codes2}};
  }

  /// The lane's unit of a list that begins with unit `begin`, where the list has one for it.
  __device__ std::uint16_t unit(std::uint32_t begin, std::uint32_t count) const {
    return lane < count ? params.exceptions[std::uint64_t{begin} + lane] : std::uint16_t{0};
  }

  /// The palettes of the lane's two rows in a strip.
  __device__ device::LanePalettes palettes(std::uint32_t strip) const {
    const std::uint8_t* rows = params.row_palettes + std::uint64_t{strip} * format::kTileRows;
    const uint2 first = params.palettes[rows[device::group_row(lane, 0)]];
    const uint2 second = params.palettes[rows[device::group_row(lane, 1)]];
    return {{{first.x, first.y}, {second.x, second.y}}};
  }
};

/// Turns a tile's input into its 16 x 64 values in the warp's staging memory.
template <class Config>
struct Decoder {
  const DecodeParams& params;
  const Loader<Config>& loader;
  std::uint16_t* staging;
  std::uint32_t lane;

  __device__ void run(const TileInput& input, const device::LanePalettes& palettes) const {
    if (input.exception_units == format::kEscapedTileUnits) {
      std::uint32_t rotated[device::kLaneGroups];
      device::load_plane(params.exceptions + input.exceptions_begin, lane, rotated);
      stage(device::decode_escaped_lane(input.lane_tile.sign_mantissa, rotated));
      __syncwarp();
      return;
    }
    stage(device::decode_lane(input.lane_tile, palettes));
    __syncwarp();
    std::uint16_t unit = input.unit;
    for (std::uint32_t done = 0; done < input.exception_units;) {
      const std::uint32_t left = input.exception_units - done;
      if (done != 0) unit = loader.unit(input.exceptions_begin + done, left);
      done += patch(unit, left);
      __syncwarp();
    }
  }

 private:
  __device__ void stage(const device::LaneValues& values) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t pair = 0; pair < 2 * device::kLaneGroups; ++pair) {
      *reinterpret_cast<std::uint32_t*>(staging + device::staged_pair(lane, pair)) = values.pairs[pair];
    }
  }

  /// Applies the entries among the first 32 of a list's `count` units, one unit a lane; returns how many were read.
  /// In an invalid list two entries may name one value, and either may win.
  __device__ std::uint32_t patch(std::uint16_t unit, std::uint32_t count) const {
    const device::ListStep step = device::read_list_step(unit, count, lane, params.exception_base);
    if (step.has_entry) {
      std::uint16_t& value = staging[device::staged_entry(unit)];
      value = device::with_exponent(value, step.exponent);
    }
    return step.units_read;
  }
};

/// Writes the staged tile to its place among the values, without what lies outside the matrix.
template <class Config>
struct Writer {
  const DecodeParams& params;
  const std::uint16_t* staging;
  std::uint32_t lane;

  __device__ void run(std::uint32_t strip, std::uint32_t column_tile) const {
    const std::uint32_t matrix = strip / params.strips;
    const std::uint32_t row = (strip - matrix * params.strips) * format::kTileRows;
    const std::uint32_t col = column_tile * format::kTileCols;
    const std::uint32_t rows = min(params.rows - row, format::kTileRows);
    const std::uint32_t cols = min(params.cols - col, format::kTileCols);
    std::uint16_t* out = params.values + (std::uint64_t{matrix} * params.rows + row) * params.row_stride + col;
    if (params.wide_stores && rows == format::kTileRows && cols == format::kTileCols) {
      write_whole(out);
    } else {
      write_part(out, rows, cols);
    }
  }

 private:
  /// Four rows at a time, 128 bytes of each.
  __device__ void write_whole(std::uint16_t* out) const {
    const std::uint32_t first_row = lane / device::kRowChunks, chunk = lane % device::kRowChunks;
    constexpr std::uint32_t kRowsPerStore = device::kLanes / device::kRowChunks;
    out += first_row * params.row_stride + chunk * device::kChunkValues;
    UNWEIGHT_UNROLL
    for (std::uint32_t r = 0; r < format::kTileRows; r += kRowsPerStore) {
      const auto* from = reinterpret_cast<const uint4*>(staging + device::staged_chunk(first_row + r, chunk));
      *reinterpret_cast<uint4*>(out + r * params.row_stride) = *from;
    }
  }

  /// One row at a time, value by value: the ragged edges, and tensors whose rows are not aligned to 16 bytes.
  __device__ void write_part(std::uint16_t* out, std::uint32_t rows, std::uint32_t cols) const {
    for (std::uint32_t r = 0; r < rows; ++r) {
      for (std::uint32_t c = lane; c < cols; c += device::kLanes) {
        out[r * params.row_stride + c] = staging[device::staged_value(r, c)];
      }
    }
  }
};

template <class Config>
__global__ void __launch_bounds__(DecodeTraits<Config>::kThreads, Config::kBlocksPerSm)
    decode_kernel(const __grid_constant__ DecodeParams params) {
  __shared__ DecodeStorage<Config> storage;
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  const std::uint32_t first_tile = DecodeTraits<Config>::first_tile(blockIdx.x, warp);
  if (first_tile >= params.tile_count) return;
  const Loader<Config> loader{params, lane};
  const Decoder<Config> decoder{params, loader, storage.staging[warp], lane};
  const Writer<Config> writer{params, storage.staging[warp], lane};

  // Ask for everything.
  const std::uint32_t bounds = loader.exception_bounds(first_tile);
  TileInput inputs[Config::kTilesPerWarp];
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < Config::kTilesPerWarp; ++i) {
    // Past the end the last tile again, which is then left unused: loads without a branch go out together.
    inputs[i].lane_tile = loader.lane_tile(min(first_tile + i * Config::kWarps, params.tile_count - 1));
  }
  std::uint32_t strip = first_tile / params.tiles_per_strip;
  device::LanePalettes palettes = loader.palettes(strip);
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < Config::kTilesPerWarp; ++i) {
    TileInput& input = inputs[i];
    input.exceptions_begin = __shfl_sync(device::kAllLanes, bounds, 2 * i);
    input.exception_units = __shfl_sync(device::kAllLanes, bounds, 2 * i + 1) - input.exceptions_begin;
    if (first_tile + i * Config::kWarps >= params.tile_count) input.exception_units = 0;
    input.unit = loader.unit(input.exceptions_begin, input.exception_units);
  }

  // Decode, patch and write tile by tile.
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < Config::kTilesPerWarp; ++i) {
    const std::uint32_t tile = first_tile + i * Config::kWarps;
    if (tile >= params.tile_count) return;
    const std::uint32_t tile_strip = tile / params.tiles_per_strip;
    if (tile_strip != strip) palettes = loader.palettes(strip = tile_strip);
    if (i != 0) __syncwarp();  // the tile before has been read from the staging memory
    decoder.run(inputs[i], palettes);
    writer.run(strip, tile - strip * params.tiles_per_strip);
  }
}

}  // namespace unweight::sm90
