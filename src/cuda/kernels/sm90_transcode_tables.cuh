// SPDX-License-Identifier: Apache-2.0
//
// All of a runtime blob but its tiles and exceptions (docs/FORMAT.md, sections 2, 4 and 5), in small kernels:
//
//   strip_hashes   a block a strip: XXH3-64 of its values, beside row_palettes
//   plan           one block: where the segments begin, whether tiles pay, the blob's size, the content's checksum
//   chunk_hashes   a block a chunk of 2^20 bytes: XXH3-64 of the payload; the last block makes the header
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/block_hash.cuh>
#include <cuda/device/transcode_state.cuh>
#include <cuda/device/warp_scan.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct HashConfig {
  static constexpr std::uint32_t kThreads = device::kHashThreads;
  static constexpr std::uint32_t kBlocksPerSm = 2;
};

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    strip_hashes_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::HashStorage storage;
  // It begins when all blocks of row_palettes have found the values there, so they are, and waits for row_palettes
  // itself only at the end: the two have work for different parts of a multiprocessor.
  ptx::launch_dependents();
  const std::uint64_t strip = params.first_strip + blockIdx.x;
  const auto* values = reinterpret_cast<const std::byte*>(device::strip_values(params, strip));
  const std::uint64_t hash =
      device::hash_range(values, device::strip_rows(params, strip) * params.cols * sizeof(std::uint16_t), storage);
  if (threadIdx.x == 0) params.workspace.content_hashes[strip] = hash;
  ptx::wait_for_previous_grids();
}

struct PlanConfig {
  static constexpr std::uint32_t kThreads = device::kHashThreads;
};

/// What a scan of the segments by a block needs.
struct ScanStorage {
  std::uint64_t warps[PlanConfig::kThreads / device::kLanes];
};

/// Replaces the segments' sums by their starts. Returns the sum of all to every thread. The starts are right only where
/// that is below 2^32, as it is in a tiled blob.
__device__ inline std::uint64_t scan_segments(std::uint32_t* segments, std::uint64_t count, ScanStorage& storage) {
  constexpr std::uint32_t kMine = 8, kWarps = PlanConfig::kThreads / device::kLanes;
  const std::uint32_t warp = device::warp_number(), lane = threadIdx.x % device::kLanes;
  std::uint64_t before = 0;
  for (std::uint64_t first = 0; first < count; first += kMine * PlanConfig::kThreads) {
    const std::uint64_t at = first + kMine * threadIdx.x;
    std::uint32_t sums[kMine];
    std::uint64_t mine = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kMine; ++i) {
      sums[i] = at + i < count ? segments[at + i] : 0;
      mine += sums[i];
    }
    const std::uint64_t up_to_here = device::add_lower_lanes(mine, lane);
    if (lane == device::kLanes - 1) storage.warps[warp] = up_to_here;
    __syncthreads();
    std::uint64_t start = before + up_to_here - mine;
    for (std::uint32_t w = 0; w < kWarps; ++w) {
      if (w < warp) start += storage.warps[w];
      before += storage.warps[w];
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kMine; ++i) {
      if (at + i < count) segments[at + i] = static_cast<std::uint32_t>(start);
      start += sums[i];
    }
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
  ptx::wait_for_previous_grids();
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

/// Chunks of the payload.
__device__ inline std::uint64_t chunk_count(const device::TranscodeState& state) {
  return format::ceil_div(state.blob_bytes - format::kHeaderBytes, device::kPayloadChunkBytes);
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

/// Says what came of it, with the header where there is one. By all threads of a block.
__device__ inline void report_outcome(const device::TranscodeParams& params, bool fits) {
  const device::TranscodeState& state = *params.workspace.state;
  if (fits) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(&state.header);
    if (threadIdx.x < sizeof state.header / sizeof *words) {
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

/// A block a chunk; the last to get there goes on with the hash of their hashes, then with the header's. Blocks beyond
/// the payload's end have nothing to hash.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    chunk_hashes_kernel(const __grid_constant__ device::TranscodeParams params) {
  enum Stage { kChunk, kPayload, kHeader };
  __shared__ device::HashStorage storage;
  ptx::wait_for_previous_grids();
  device::TranscodeState& state = *params.workspace.state;
  const bool fits = device::may_write(params), has_chunk = fits && blockIdx.x < chunk_count(state);
  const std::uint64_t begin = format::kHeaderBytes + blockIdx.x * device::kPayloadChunkBytes;
  const std::byte* data = params.out + begin;
  std::uint64_t size = 0;
  if (has_chunk) {
    const std::uint64_t left = state.blob_bytes - begin;
    size = left < device::kPayloadChunkBytes ? left : device::kPayloadChunkBytes;
  }
  // One copy of the code that hashes, for all three.
  UNWEIGHT_NO_UNROLL
  for (std::uint32_t stage = kChunk; stage <= kHeader; ++stage) {
    const std::uint64_t hash = device::hash_range(data, size, storage);
    if (stage == kChunk) {
      if (threadIdx.x == 0 && has_chunk) params.workspace.payload_hashes[blockIdx.x] = hash;
      if (!device::is_last_block(params.workspace)) return;
      if (!fits) break;
      data = reinterpret_cast<const std::byte*>(params.workspace.payload_hashes);
      size = chunk_count(state) * sizeof(std::uint64_t);
    } else if (stage == kPayload) {
      if (threadIdx.x == 0) {
        state.header = make_header(params, state);
        state.header.payload_checksum = hash;
      }
      data = reinterpret_cast<const std::byte*>(&state.header);
      size = offsetof(format::Header, header_checksum);
    } else if (threadIdx.x == 0) {
      state.header.header_checksum = hash;
    }
    __syncthreads();
  }
  report_outcome(params, fits);
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
