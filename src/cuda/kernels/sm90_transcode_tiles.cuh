// SPDX-License-Identifier: Apache-2.0
//
// Tiles of a runtime blob from decoded values (docs/FORMAT.md, sections 3 and 4), once it is known where each one's
// exceptions begin: the tiles and their exceptions, or, of a raw blob, the values; some of the blocks write the tables.
//
//   bytes  16 bits a value in, 11.2 bits out. 28672 x 4096: 235 + 165 MB, 133 us at 3.0 TB/s.
//   work   some 20 instructions a value.
//
// A warp works on up to 8 neighbouring tiles of a strip, alone. A tile goes through shared memory, which turns rows
// into the lanes' fragments, as decoding does the other way round:
//
//   global, 128-byte row pieces  -->  shared, 2 KiB, swizzled  -->  32 values a lane  -->  sign+mantissa, codes
//                                                                                    -->  exceptions, where a ballot of
//                                                                                         counts says that they belong
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/blob_tables.cuh>
#include <cuda/device/code_table.cuh>
#include <cuda/device/tile_source.cuh>
#include <cuda/device/tile_staging.cuh>
#include <cuda/device/transcode_state.cuh>
#include <cuda/device/warp_scan.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct EncodeTilesConfig {
  static constexpr std::uint32_t kWarps = 4;
  static constexpr std::uint32_t kBlocksPerSm = 8;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
};

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
  /// @param start     of its exceptions, in units
  __device__ void run(const device::TileSource& source, const device::TileVectors& vectors,
                      const device::PaletteKey* palettes, std::uint64_t tile, std::uint32_t start) const {
    __syncwarp();  // the tile before has been read from the staging memory
    stage(source, vectors, palettes);
    __syncwarp();
    std::uint32_t sign_mantissa[device::kLaneGroups], codes[4] = {};
    encode(sign_mantissa, codes);
    store(tile, sign_mantissa, codes);
    write_exceptions(exceptions + start, codes);
  }

 private:
  /// The tile's rows; what lies outside the matrix becomes the lowest exponent of its row's palette, sign and mantissa
  /// 0.
  __device__ void stage(const device::TileSource& source, const device::TileVectors& vectors,
                        const device::PaletteKey* palettes) const {
    if (source.by_vectors) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < device::TileVectors::kCount; ++i) {
        const std::uint32_t at =
            device::staged_chunk(device::TileVectors::row(lane, i), device::TileVectors::chunk(lane));
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
  __device__ void write_exceptions(std::uint16_t* units, const std::uint32_t (&codes)[4]) const {
    constexpr std::uint32_t kHalf = 16;
    std::uint32_t marks = device::exception_marks(codes);
    if (!__any_sync(device::kAllLanes, marks != 0)) return;
    const std::uint32_t first_count = count(marks & 0xffff), second_count = count(marks & 0xffff0000U);
    // Up to 1024 each, in the sums of all lanes.
    const std::uint32_t sums = device::add_lower_lanes(first_count | second_count << 16, lane);
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
  const device::StripSource strip(params, item.strip, lane);
  for (std::uint32_t column = item.first_column; column < item.end_column; ++column) {
    const device::TileSource source(params, strip, column);
    for (std::uint32_t r = 0; r < source.rows; ++r) {
      for (std::uint32_t c = lane; c < source.cols; c += device::kLanes) {
        out[r * params.cols + std::uint64_t{column} * format::kTileCols + c] = source.values[r * params.cols + c];
      }
    }
  }
}

/// Where the exceptions of tile first + lane begin in the blob's, of `count` tiles. All of an item's at once: what is
/// loaded for each would be waited for together with the next one's values.
__device__ inline std::uint32_t exception_start(const device::TranscodeParams& params, std::uint64_t first,
                                                std::uint32_t count, std::uint32_t lane) {
  if (lane >= count) return 0;
  const std::uint64_t tile = first + lane;
  return params.workspace.segment_starts[tile / format::kTilesPerSegment] + params.workspace.tile_starts[tile];
}

__device__ inline void encode_item(const device::TranscodeParams& params, const TileItem& item, TileStorage& storage,
                                   std::uint32_t lane) {
  const device::TranscodeState& state = *params.workspace.state;
  const device::StripSource strip(params, item.strip, lane);
  device::TileVectors next{};
  next.load(strip, item.first_column);
  std::uint64_t tile = item.strip * params.geometry.tiles_per_strip + item.first_column;
  const std::uint32_t starts = exception_start(params, tile, item.end_column - item.first_column, lane);
  const TileEncoder encoder{
      params,
      storage,
      reinterpret_cast<std::uint16_t*>(params.out + device::exceptions_offset(params, state.palette_count)),
      static_cast<std::uint8_t>(state.exception_base),
      state.exceptions_fit != 0,
      lane};
  const device::PaletteKey* const palettes = params.workspace.row_palettes + item.strip * format::kTileRows;
  storage.codes.make_codes(palettes, lane);
  for (std::uint32_t column = item.first_column; column < item.end_column; ++column, ++tile) {
    const device::TileVectors vectors = next;
    // On its way while this one is encoded.
    if (column + 1 < item.end_column) next.load(strip, column + 1);
    const std::uint32_t start = __shfl_sync(device::kAllLanes, starts, column - item.first_column);
    encoder.run(device::TileSource(params, strip, column), vectors, palettes, tile, start);
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
