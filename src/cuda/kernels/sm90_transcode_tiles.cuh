// SPDX-License-Identifier: Apache-2.0
//
// Tiles of a runtime blob from decoded values (docs/FORMAT.md, sections 3 and 4), once the palettes are known:
//
//   count_units   how many exception units each tile has, and so where its own begin in their segment: a block has the
//   64
//                 tiles of one
//   encode_tiles  the tiles and their exceptions, or, of a raw blob, the values; some of the blocks write the tables
//
//   bytes  16 bits a value in, twice; 11.2 bits out. 28672 x 4096: 235 MB, then 235 + 165 MB, 210 us at 3.0 TB/s.
//   work   count some 5 instructions a value, encode 12.
//
// A warp works on up to 8 neighbouring tiles, alone. In encode_tiles a tile goes through shared memory,
// which turns rows into the lanes' fragments, as decoding does the other way round:
//
//   global, 128-byte row pieces  -->  shared, 2 KiB, swizzled  -->  32 values a lane  -->  sign+mantissa, codes
//                                                                                    -->  exceptions, where a ballot of
//                                                                                         counts says that they belong
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/blob_tables.cuh>
#include <cuda/device/code_table.cuh>
#include <cuda/device/tile_staging.cuh>
#include <cuda/device/transcode_state.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct CountUnitsConfig {
  static constexpr std::uint32_t kWarps = 8;
  static constexpr std::uint32_t kBlocksPerSm = 4;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
  static constexpr std::uint32_t kWarpTiles = format::kTilesPerSegment / kWarps;
};

struct EncodeTilesConfig {
  static constexpr std::uint32_t kWarps = 4;
  static constexpr std::uint32_t kBlocksPerSm = 8;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
};

/// A strip's values, found with a division.
struct StripSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint32_t rows;           ///< inside the matrix

  __device__ StripSource(const device::TranscodeParams& params, std::uint64_t strip)
      : values(device::strip_values(params, strip)), rows(device::strip_rows(params, strip)) {}
};

/// Where a tile's values are.
struct TileSource {
  const std::uint16_t* values;  ///< of its first row
  std::uint64_t stride;
  std::uint32_t rows, cols;  ///< inside the matrix
  bool by_vectors;           ///< whole, and its rows aligned to 16 bytes

  __device__ TileSource(const device::TranscodeParams& params, const StripSource& strip, std::uint32_t column)
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

  static __device__ std::uint32_t row(std::uint32_t lane, std::uint32_t i) { return lane / device::kRowChunks + 4 * i; }
  static __device__ std::uint32_t chunk(std::uint32_t lane) { return lane % device::kRowChunks; }

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

// ---- count ----------------------------------------------------------------------------------------------------------

__device__ inline std::uint32_t count_pair(const device::CodeTable& units, std::uint32_t row, std::uint32_t pair) {
  const std::uint32_t exponents = device::pair_exponents(pair);
  return units.look_up(row, exponents >> 8 & 0xff) + units.look_up(row, exponents >> 24);
}

/// A tile's units; all lanes get the same. `vectors` are the tile's.
__device__ inline std::uint32_t count_units(const device::CodeTable& units, const TileSource& tile,
                                            const TileVectors& vectors, std::uint32_t lane) {
  std::uint32_t sum = 0;
  if (tile.by_vectors) {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < TileVectors::kCount; ++i) {
      const std::uint32_t row = TileVectors::row(lane, i);
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
  StripSource strip_source(params, strip);
  TileSource source(params, strip_source, column);
  TileVectors next;
  next.load(source, lane);
  for (; tile < end; ++tile) {
    if (strip != strip_of_table) {
      table.make_units(params.workspace.row_palettes + strip * format::kTileRows,
                       params.workspace.state->exception_base, lane);
      strip_of_table = strip;
    }
    const TileSource here = source;
    const TileVectors vectors = next;
    if (tile + 1 < end) {  // on its way while this one is counted
      if (++column == columns) {
        column = 0;
        ++strip;
        strip_source = StripSource(params, strip);
      }
      source = TileSource(params, strip_source, column);
      next.load(source, lane);
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
  std::uint32_t sum = first + second;
  UNWEIGHT_UNROLL
  for (std::uint32_t distance = 1; distance < device::kLanes; distance *= 2) {
    const std::uint32_t before = __shfl_up_sync(device::kAllLanes, sum, distance);
    if (lane >= distance) sum += before;
  }
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

// ---- encode ---------------------------------------------------------------------------------------------------------

struct TileStorage {
  device::CodeTable codes;
  alignas(16) std::uint16_t staging[format::kTileValues];
};

/// Encodes tiles of a strip.
struct TileEncoder {
  const device::TranscodeParams& params;
  TileStorage& storage;
  std::uint16_t* exceptions;  ///< of the blob
  std::uint8_t exception_base;
  bool all_fit;  ///< entries have room for all exceptions' exponents
  std::uint32_t lane;

  /// @param palettes  of the strip's rows
  /// @param tile      of all tiles
  /// @param vectors   the tile's, where it is whole
  __device__ void run(const TileSource& source, const TileVectors& vectors, const device::PaletteKey* palettes,
                      std::uint64_t tile) const {
    __syncwarp();  // the tile before has been read from the staging memory
    stage(source, vectors, palettes);
    __syncwarp();
    std::uint32_t sign_mantissa[device::kLaneGroups], codes[4] = {};
    encode(sign_mantissa, codes);
    store(tile, sign_mantissa, codes);
    write_exceptions(tile, codes);
  }

 private:
  /// The tile's rows; what lies outside the matrix becomes the lowest exponent of its row's palette, sign and mantissa
  /// 0.
  __device__ void stage(const TileSource& source, const TileVectors& vectors,
                        const device::PaletteKey* palettes) const {
    if (source.by_vectors) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < TileVectors::kCount; ++i) {
        const std::uint32_t at = device::staged_chunk(TileVectors::row(lane, i), TileVectors::chunk(lane));
        *reinterpret_cast<uint4*>(storage.staging + at) = vectors.of[i];
      }
      return;
    }
    for (std::uint32_t row = 0; row < format::kTileRows; ++row) {
      const auto outside = static_cast<std::uint16_t>(device::palette_exponent(palettes[row], 0) << 7);
      for (std::uint32_t col = lane; col < format::kTileCols; col += device::kLanes) {
        const bool inside = row < source.rows && col < source.cols;
        storage.staging[device::staged_value(row, col)] = inside ? source.values[row * source.stride + col] : outside;
      }
    }
  }

  [[nodiscard]] __device__ std::uint32_t pair(std::uint32_t number) const {
    return *reinterpret_cast<const std::uint32_t*>(storage.staging + device::staged_pair(lane, number));
  }

  /// The lane's sign+mantissa bytes and its words of codes, in which bit 3 of a nibble marks an exception.
  __device__ void encode(std::uint32_t (&sign_mantissa)[device::kLaneGroups], std::uint32_t (&codes)[4]) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < device::kLaneGroups; ++g) {
      const std::uint32_t first = pair(2 * g), second = pair(2 * g + 1), row = device::group_row(lane, g);
      sign_mantissa[g] = device::SplitGroup::of(first, second).sign_mantissa;
      const std::uint32_t low = device::pair_exponents(first), high = device::pair_exponents(second);
      const std::uint32_t four = look_up(row, low >> 8 & 0xff) | look_up(row, low >> 24) << 4 |
                                 look_up(row, high >> 8 & 0xff) << 8 | look_up(row, high >> 24) << 12;
      codes[g / 2] |= four << 16 * (g & 1);
    }
  }
  [[nodiscard]] __device__ std::uint32_t look_up(std::uint32_t row, std::uint32_t exponent) const {
    return storage.codes.look_up(row, exponent);
  }

  __device__ void store(std::uint64_t tile, const std::uint32_t (&sign_mantissa)[device::kLaneGroups],
                        const std::uint32_t (&codes)[4]) const {
    std::byte* const at = params.out + params.geometry.tiles_offset + tile * format::kTileBytes;
    auto* const halves = reinterpret_cast<uint4*>(at);
    halves[lane] = make_uint4(sign_mantissa[0], sign_mantissa[1], sign_mantissa[2], sign_mantissa[3]);
    halves[device::kLanes + lane] = make_uint4(sign_mantissa[4], sign_mantissa[5], sign_mantissa[6], sign_mantissa[7]);
    std::uint32_t words[3];
    device::pack_codes(codes, words);
    reinterpret_cast<uint2*>(at + format::kCodes01Offset)[lane] = make_uint2(words[0], words[1]);
    reinterpret_cast<std::uint32_t*>(at + format::kCodes2Offset)[lane] = words[2];
  }

  /// The exponent of the lane's value `index`.
  [[nodiscard]] __device__ std::uint8_t exponent(std::uint32_t index) const {
    return format::exponent_of(storage.staging[device::staged_entry(static_cast<std::uint16_t>(position(index)))]);
  }
  [[nodiscard]] __device__ std::uint32_t position(std::uint32_t index) const {
    return (index >> 4) << 9 | lane << 4 | (index & 15);
  }

  [[nodiscard]] __device__ bool fits(std::uint8_t exponent) const {
    return format::exponent_fits_entry(exponent, exception_base);
  }

  /// Units of the lane's exceptions among `marks`.
  [[nodiscard]] __device__ std::uint32_t count(std::uint32_t marks) const {
    auto units = static_cast<std::uint32_t>(__popc(marks));
    if (all_fit) return units;
    for (; marks != 0; marks &= marks - 1) units += fits(exponent(lowest(marks))) ? 0U : 1U;
    return units;
  }
  static __device__ std::uint32_t lowest(std::uint32_t marks) {
    return static_cast<std::uint32_t>(__ffs(static_cast<int>(marks)) - 1);
  }

  /// The tile's list, in the order of positions: the lanes' first halves, then their second ones. Or its plane.
  __device__ void write_exceptions(std::uint64_t tile, const std::uint32_t (&codes)[4]) const {
    constexpr std::uint32_t kHalf = 16;
    std::uint32_t marks = device::exception_marks(codes);
    if (!__any_sync(device::kAllLanes, marks != 0)) return;
    const std::uint64_t begin = std::uint64_t{params.workspace.segment_starts[tile / format::kTilesPerSegment]} +
                                params.workspace.tile_starts[tile];
    std::uint16_t* const units = exceptions + begin;

    const std::uint32_t first_count = count(marks & 0xffff), second_count = count(marks & 0xffff0000U);
    std::uint32_t sums = first_count | second_count << 16;  // up to 1024 each, in the sums of all lanes
    UNWEIGHT_UNROLL
    for (std::uint32_t distance = 1; distance < device::kLanes; distance *= 2) {
      const std::uint32_t before = __shfl_up_sync(device::kAllLanes, sums, distance);
      if (lane >= distance) sums += before;
    }
    const std::uint32_t totals = __shfl_sync(device::kAllLanes, sums, device::kLanes - 1);
    const std::uint32_t first_half = totals & 0xffff, all = first_half + (totals >> 16);
    if (all >= format::kEscapedTileUnits) {
      write_plane(units);
      return;
    }
    std::uint32_t at = (sums & 0xffff) - first_count;
    const std::uint32_t end = at + first_count, second = first_half + (sums >> 16) - second_count;
    if (at == end) at = second;
    UNWEIGHT_NO_UNROLL
    for (; marks != 0; marks &= marks - 1) {
      const std::uint32_t index = lowest(marks);
      const std::uint8_t e = exponent(index);
      if (all_fit || fits(e)) {
        units[at++] = format::make_entry(position(index), e, exception_base);
      } else {
        units[at++] = format::make_extended_entry(position(index));
        units[at++] = e;
      }
      if (at == end && index < kHalf) at = second;
    }
  }

  __device__ void write_plane(std::uint16_t* units) const {
    for (std::uint32_t index = 0; index < format::kTileValues / device::kLanes; index += 2) {
      const std::uint32_t low = format::rotate_exponent(exponent(index)),
                          high = format::rotate_exponent(exponent(index + 1));
      units[position(index) / 2] = static_cast<std::uint16_t>(low | high << 8);
    }
  }
};

/// The tiles of a warp, neighbours in a strip.
struct TileItem {
  std::uint64_t strip;
  std::uint32_t first_column, end_column;  ///< in tiles

  /// False where the slab has no such item.
  __device__ bool find(const device::TranscodeParams& params, std::uint32_t number) {
    const auto columns = static_cast<std::uint32_t>(params.geometry.tiles_per_strip);
    const std::uint32_t per_strip = (columns + params.item_tiles - 1) / params.item_tiles;
    const std::uint32_t strip_in_slab = number / per_strip;
    strip = params.first_strip + strip_in_slab;
    if (strip >= params.end_strip) return false;
    first_column = (number - strip_in_slab * per_strip) * params.item_tiles;
    end_column = min(columns, first_column + params.item_tiles);
    return true;
  }
};

/// Of a raw blob: the values as they are.
__device__ inline void copy_raw_tiles(const device::TranscodeParams& params, const TileItem& item, std::uint32_t lane) {
  const std::uint64_t matrix = item.strip / params.geometry.strips;
  const std::uint64_t row = matrix * params.rows + (item.strip - matrix * params.geometry.strips) * format::kTileRows;
  auto* const out = reinterpret_cast<std::uint16_t*>(params.out + format::kHeaderBytes) + row * params.cols;
  const StripSource strip(params, item.strip);
  for (std::uint32_t column = item.first_column; column < item.end_column; ++column) {
    const TileSource source(params, strip, column);
    for (std::uint32_t r = 0; r < source.rows; ++r) {
      for (std::uint32_t c = lane; c < source.cols; c += device::kLanes) {
        out[r * params.cols + std::uint64_t{column} * format::kTileCols + c] = source.values[r * params.cols + c];
      }
    }
  }
}

__device__ inline void encode_item(const device::TranscodeParams& params, const TileItem& item, TileStorage& storage,
                                   std::uint32_t lane) {
  const device::TranscodeState& state = *params.workspace.state;
  const StripSource strip(params, item.strip);
  TileVectors next;
  next.load(TileSource(params, strip, item.first_column), lane);
  const device::PaletteKey* const palettes = params.workspace.row_palettes + item.strip * format::kTileRows;
  storage.codes.make_codes(palettes, lane);
  const TileEncoder encoder{
      params,
      storage,
      reinterpret_cast<std::uint16_t*>(params.out + device::exceptions_offset(params, state.palette_count)),
      static_cast<std::uint8_t>(state.exception_base),
      state.exceptions_fit != 0,
      lane};
  std::uint64_t tile = item.strip * params.geometry.tiles_per_strip + item.first_column;
  for (std::uint32_t column = item.first_column; column < item.end_column; ++column, ++tile) {
    const TileVectors vectors = next;
    // On its way while this one is encoded.
    if (column + 1 < item.end_column) next.load(TileSource(params, strip, column + 1), lane);
    encoder.run(TileSource(params, strip, column), vectors, palettes, tile);
  }
}

/// The first params.table_blocks blocks write the tables, which takes longest to begin.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    encode_tiles_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ TileStorage storage[Config::kWarps];
  device::begin_kernel();
  if (!device::may_write(params)) return;
  if (blockIdx.x < params.table_blocks) {
    device::write_tables(params, std::uint64_t{blockIdx.x} * Config::kThreads + threadIdx.x,
                         std::uint64_t{params.table_blocks} * Config::kThreads);
    return;
  }
  const std::uint32_t warp = device::warp_number(), lane = threadIdx.x % device::kLanes;
  TileItem item;
  if (!item.find(params, (blockIdx.x - params.table_blocks) * Config::kWarps + warp)) return;
  if (params.workspace.state->is_tiled == 0) {
    copy_raw_tiles(params, item, lane);
  } else {
    encode_item(params, item, storage[warp], lane);
  }
}

}  // namespace unweight::sm90
