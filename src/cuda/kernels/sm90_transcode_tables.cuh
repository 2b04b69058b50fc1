// SPDX-License-Identifier: Apache-2.0
//
// All of a runtime blob but its tiles and exceptions (docs/FORMAT.md, sections 2, 4 and 5), in small kernels:
//
//   strip_hashes   a block a strip: XXH3-64 of its values
//   start_units    a warp a segment of 64 tiles: where each tile's exceptions begin in it
//   plan           one block: where the segments begin, whether tiles pay, the blob's size, the content's checksum
//   write_tables   the sections between tiles and exceptions, and what is padding
//   chunk_hashes   a block a chunk of 2^20 bytes: XXH3-64 of the payload
//   finish         one block: the header
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/block_hash.cuh>
#include <cuda/device/transcode_state.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct HashConfig {
  static constexpr std::uint32_t kThreads = device::kHashThreads;
  static constexpr std::uint32_t kBlocksPerSm = 3;
};

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    strip_hashes_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::HashStorage storage;
  const std::uint64_t strip = params.first_strip + blockIdx.x;
  const auto* values = reinterpret_cast<const std::byte*>(device::strip_values(params, strip));
  const std::uint64_t hash =
      device::hash_range(values, device::strip_rows(params, strip) * params.cols * sizeof(std::uint16_t), storage);
  if (threadIdx.x == 0) params.workspace.content_hashes[strip] = hash;
}

struct StartUnitsConfig {
  static constexpr std::uint32_t kWarps = 8;
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
};

/// Replaces the tiles' units by where they begin in their segment, and stores the segments' sums. A lane has two tiles.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads)
    start_units_kernel(const __grid_constant__ device::TranscodeParams params) {
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  const std::uint64_t segment = std::uint64_t{blockIdx.x} * Config::kWarps + warp;
  if (segment >= params.geometry.segments) return;
  const std::uint64_t tile = segment * format::kTilesPerSegment + 2 * lane, tiles = params.geometry.tiles;
  std::uint16_t* const starts = params.workspace.tile_starts;
  const std::uint32_t first = tile < tiles ? starts[tile] : 0, second = tile + 1 < tiles ? starts[tile + 1] : 0;
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

struct PlanConfig {
  static constexpr std::uint32_t kThreads = device::kHashThreads;
};

/// What a scan of the segments by a block needs.
struct ScanStorage {
  std::uint64_t sums[PlanConfig::kThreads];
};

/// Replaces the segments' sums by their starts. Returns the sum of all to every thread. The starts are right only where
/// that is below 2^32, as it is in a tiled blob.
__device__ inline std::uint64_t scan_segments(std::uint32_t* segments, std::uint64_t count, ScanStorage& storage) {
  constexpr std::uint32_t kThreads = PlanConfig::kThreads;
  std::uint64_t before = 0;
  for (std::uint64_t first = 0; first < count; first += kThreads) {
    const std::uint64_t i = first + threadIdx.x;
    const std::uint64_t mine = i < count ? segments[i] : 0;
    storage.sums[threadIdx.x] = mine;
    __syncthreads();
    for (std::uint32_t distance = 1; distance < kThreads; distance *= 2) {
      const std::uint64_t add = threadIdx.x >= distance ? storage.sums[threadIdx.x - distance] : 0;
      __syncthreads();
      storage.sums[threadIdx.x] += add;
      __syncthreads();
    }
    if (i < count) segments[i] = static_cast<std::uint32_t>(before + storage.sums[threadIdx.x] - mine);
    before += storage.sums[kThreads - 1];
    __syncthreads();
  }
  return before;
}

/// Whether tiles pay: FORMAT.md, 6.5.
__device__ inline bool tiles_pay(std::uint64_t tiled_bytes, std::uint64_t raw_bytes) {
  constexpr std::uint64_t kMinSavingDivisor = 32;
  return tiled_bytes <= raw_bytes - raw_bytes / kMinSavingDivisor;
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    plan_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::HashStorage hash_storage;
  __shared__ ScanStorage scan_storage;
  device::TranscodeState& state = *params.workspace.state;
  const std::uint64_t strips = params.cols == 0 ? 0 : params.batch * params.geometry.strips;
  const std::uint64_t content = device::hash_range(reinterpret_cast<const std::byte*>(params.workspace.content_hashes),
                                                   strips * sizeof(std::uint64_t), hash_storage);
  const std::uint64_t units = scan_segments(params.workspace.segment_starts, params.geometry.segments, scan_storage);
  if (threadIdx.x != 0) return;
  const format::TiledGeometry geometry =
      format::tiled_geometry(params.batch, params.rows, params.cols, state.palette_count);
  const std::uint64_t tiled_bytes = geometry.blob_bytes(units);
  const bool is_tiled = tiles_pay(tiled_bytes, params.raw_bytes) && units <= UINT32_MAX;
  state.content_checksum = content;
  state.is_tiled = is_tiled ? 1 : 0;
  state.exception_units = is_tiled ? units : 0;
  state.blob_bytes = is_tiled ? tiled_bytes : params.raw_bytes;
  if (content != params.content_checksum && state.status == 0) {
    state.status = device::make_report(device::Finding::kContentChecksum, 0);
  }
  params.outcome[0] = state.status;
  params.outcome[1] = state.blob_bytes;
}

struct WriteTablesConfig {
  static constexpr std::uint32_t kThreads = 256;
};

/// Bytes of the blob that are neither header, tile, exception nor raw value, two at a time.
struct TableWriter {
  const device::TranscodeParams& params;
  const device::TranscodeState& state;
  format::TiledGeometry at;

  [[nodiscard]] __device__ std::uint32_t row_number(std::uint64_t row) const {
    if (row >= at.padded_rows) return 0;
    return device::palette_number(state, params.workspace.row_palettes[row]);
  }
  [[nodiscard]] __device__ std::uint32_t palette_byte(std::uint64_t i) const {
    if (i >= std::uint64_t{state.palette_count} * format::kPaletteSize) return 0;
    return format::rotate_exponent(device::palette_exponent(state.palettes[i / format::kPaletteSize],
                                                            static_cast<std::uint32_t>(i % format::kPaletteSize)));
  }

  /// The two bytes at `offset`, which is even and between the tiles and the exceptions.
  [[nodiscard]] __device__ std::uint32_t unit(std::uint64_t offset) const {
    if (offset < at.tile_starts_offset) {
      const std::uint64_t i = (offset - at.segment_starts_offset) / sizeof(std::uint32_t);
      const std::uint32_t start = i < at.segments ? params.workspace.segment_starts[i] : 0;
      return offset % sizeof(std::uint32_t) == 0 ? start & 0xffff : start >> 16;
    }
    if (offset < at.row_palettes_offset) {
      const std::uint64_t i = (offset - at.tile_starts_offset) / sizeof(std::uint16_t);
      return i <= at.tiles ? params.workspace.tile_starts[i] : 0;
    }
    if (offset < at.palettes_offset) {
      const std::uint64_t row = offset - at.row_palettes_offset;
      return row_number(row) | row_number(row + 1) << 8;
    }
    const std::uint64_t i = offset - at.palettes_offset;
    return palette_byte(i) | palette_byte(i + 1) << 8;
  }
};

template <class Config>
__global__ void __launch_bounds__(Config::kThreads)
    write_tables_kernel(const __grid_constant__ device::TranscodeParams params) {
  if (!device::may_write(params)) return;
  const device::TranscodeState& state = *params.workspace.state;
  const TableWriter writer{params, state,
                           format::tiled_geometry(params.batch, params.rows, params.cols, state.palette_count)};
  const std::uint64_t thread = std::uint64_t{blockIdx.x} * Config::kThreads + threadIdx.x,
                      threads = std::uint64_t{gridDim.x} * Config::kThreads;
  std::uint64_t end = format::kHeaderBytes + params.batch * params.rows * params.cols * sizeof(std::uint16_t);
  if (state.is_tiled != 0) {
    const std::uint64_t begin = writer.at.segment_starts_offset;
    for (std::uint64_t offset = begin + 2 * thread; offset < writer.at.exceptions_offset; offset += 2 * threads) {
      *reinterpret_cast<std::uint16_t*>(params.out + offset) = static_cast<std::uint16_t>(writer.unit(offset));
    }
    end = writer.at.exceptions_offset + state.exception_units * sizeof(std::uint16_t);
  }
  for (std::uint64_t offset = end + 2 * thread; offset < state.blob_bytes; offset += 2 * threads) {
    *reinterpret_cast<std::uint16_t*>(params.out + offset) = 0;
  }
}

/// Chunks of the payload.
__device__ inline std::uint64_t chunk_count(const device::TranscodeState& state) {
  return format::ceil_div(state.blob_bytes - format::kHeaderBytes, device::kPayloadChunkBytes);
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    chunk_hashes_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::HashStorage storage;
  const device::TranscodeState& state = *params.workspace.state;
  if (!device::may_write(params) || blockIdx.x >= chunk_count(state)) return;
  const std::uint64_t begin = format::kHeaderBytes + blockIdx.x * device::kPayloadChunkBytes;
  const std::uint64_t left = state.blob_bytes - begin;
  const std::uint64_t hash = device::hash_range(
      params.out + begin, left < device::kPayloadChunkBytes ? left : device::kPayloadChunkBytes, storage);
  if (threadIdx.x == 0) params.workspace.payload_hashes[blockIdx.x] = hash;
}

/// The magic bytes, the first in the lowest byte: device code has no arrays of the host's.
inline constexpr std::uint64_t kMagicWord = [] {
  std::uint64_t word = 0;
  for (std::uint32_t i = 0; i < sizeof format::kMagic; ++i) {
    word |= std::uint64_t{static_cast<std::uint8_t>(format::kMagic[i])} << 8 * i;
  }
  return word;
}();

/// The header but for its checksums of header and payload.
__device__ inline format::Header make_header(const device::TranscodeParams& params,
                                             const device::TranscodeState& state) {
  format::Header h{};
  for (std::uint32_t i = 0; i < sizeof h.magic; ++i) h.magic[i] = static_cast<char>(kMagicWord >> 8 * i);
  h.version_major = format::kVersionMajor;
  h.version_minor = format::kVersionMinor;
  h.header_bytes = format::kHeaderBytes;
  h.blob_bytes = state.blob_bytes;
  h.dtype = format::kDtypeBf16;
  h.layout = static_cast<std::uint8_t>(state.is_tiled);
  h.batch = params.batch;
  h.rows = params.rows;
  h.cols = params.cols;
  h.content_checksum = state.content_checksum;
  if (state.is_tiled == 0) return h;
  const format::TiledGeometry at = format::tiled_geometry(params.batch, params.rows, params.cols, state.palette_count);
  h.exception_base = static_cast<std::uint8_t>(state.exception_base);
  h.palette_count = state.palette_count;
  h.exception_units = state.exception_units;
  h.tiles_offset = at.tiles_offset;
  h.segment_starts_offset = at.segment_starts_offset;
  h.tile_starts_offset = at.tile_starts_offset;
  h.row_palettes_offset = at.row_palettes_offset;
  h.palettes_offset = at.palettes_offset;
  h.exceptions_offset = at.exceptions_offset;
  return h;
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    finish_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::HashStorage storage;
  alignas(16) __shared__ format::Header header;
  device::TranscodeState& state = *params.workspace.state;
  const bool fits = device::may_write(params);
  if (fits) {
    const std::uint64_t payload =
        device::hash_range(reinterpret_cast<const std::byte*>(params.workspace.payload_hashes),
                           chunk_count(state) * sizeof(std::uint64_t), storage);
    if (threadIdx.x == 0) {
      header = make_header(params, state);
      header.payload_checksum = payload;
    }
    __syncthreads();
    const std::uint64_t checksum = device::hash_range(reinterpret_cast<const std::byte*>(&header),
                                                      offsetof(format::Header, header_checksum), storage);
    if (threadIdx.x == 0) header.header_checksum = checksum;
    __syncthreads();
    const auto* words = reinterpret_cast<const std::uint64_t*>(&header);
    if (threadIdx.x < sizeof header / sizeof *words) {
      reinterpret_cast<std::uint64_t*>(params.out)[threadIdx.x] = words[threadIdx.x];
      params.outcome[2 + threadIdx.x] = words[threadIdx.x];
    }
  }
  if (threadIdx.x == 0) {
    const bool too_large = state.status == 0 && !fits;
    params.outcome[0] = too_large ? device::make_report(device::Finding::kTooLarge, 0) : state.status;
    params.outcome[1] = state.blob_bytes;
  }
}

/// Copies the values of a raw distribution blob to the slab, a block a strip.
struct UnpackRawConfig {
  static constexpr std::uint32_t kThreads = 256;
};

template <class Config>
__global__ void __launch_bounds__(Config::kThreads)
    unpack_raw_kernel(const __grid_constant__ device::TranscodeParams params, const std::uint16_t* values) {
  if (device::is_skipped(params)) return;
  const std::uint64_t strip = params.first_strip + blockIdx.x, matrix = strip / params.geometry.strips;
  const std::uint64_t row = matrix * params.rows + (strip - matrix * params.geometry.strips) * format::kTileRows;
  const std::uint64_t count = device::strip_rows(params, strip) * params.cols;
  std::uint16_t* const out = device::strip_values(params, strip);
  for (std::uint64_t i = threadIdx.x; i < count; i += Config::kThreads) out[i] = values[row * params.cols + i];
}

}  // namespace unweight::sm90
