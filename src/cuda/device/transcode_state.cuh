// SPDX-License-Identifier: Apache-2.0
//
// What the kernels that make a runtime blob from decoded values share: the tensor's extents, the workspace, and what is
// found out on the way (docs/FORMAT.md, section 6). launch/transcode_params.hpp says in which order they run.
//
// Most are launched so that they may begin before the kernel in front of them has ended. What it writes is there after
// begin_kernel(), with which each begins; as that waits for the kernel in front to end, and that one waited likewise,
// all before it is there, too. The last kernel of a half calls wait_for_previous_grids() alone, so that nobody else's
// kernel begins early.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/decode_status.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>
#include <format/layout.hpp>

namespace unweight::device {

/// Eight distinct exponents in ascending order, the first in the highest byte: palettes in lexicographic order are
/// numbers in order, and none is 0.
using PaletteKey = std::uint64_t;

UNWEIGHT_HOST_DEVICE constexpr std::uint8_t palette_exponent(PaletteKey palette, std::uint32_t i) {
  return static_cast<std::uint8_t>(palette >> (56 - 8 * i));
}

inline constexpr std::uint32_t kExponents = 256;

/// Found out on the way.
struct TranscodeState {
  std::uint64_t status;                       ///< decode_status.cuh
  std::uint64_t outside[kExponents];          ///< how often each exponent occurs outside its row's palette
  PaletteKey found[format::kMaxPalettes];     ///< rows' palettes, the first that were found, in no order
  PaletteKey palettes[format::kMaxPalettes];  ///< of the blob, ascending
  std::uint32_t found_count;                  ///< of rows' palettes, also of those that have no place in `found`
  std::uint32_t arrivals;                     ///< of thread blocks: is_last_block()
  std::uint32_t palette_count;
  std::uint32_t too_many_palettes;  ///< 1: more rows' palettes than a blob has, so some rows take another one
  std::uint32_t exception_base;
  std::uint32_t exceptions_fit;  ///< 1: entries with that base have room for all exceptions' exponents
  std::uint32_t is_tiled;
  std::uint64_t exception_units;
  std::uint64_t blob_bytes;
  std::uint64_t content_checksum;
  alignas(16) format::Header header;  ///< of the blob
};

/// Device memory. Everything but the values is small.
struct TranscodeWorkspace {
  TranscodeState* state;
  PaletteKey* row_palettes;  ///< by padded row
  PaletteKey* slots;         ///< a hash table of the rows' palettes, 0: free
  std::uint64_t* slot_rows;  ///< how many padded rows have the slot's
  std::uint64_t slot_count;
  std::uint16_t* tile_starts;  ///< as in the blob; before that, how many units each tile has
  std::uint32_t* segment_starts;
  std::uint64_t* content_hashes;  ///< by strip
  std::uint64_t* payload_hashes;  ///< by chunk of 2^20 bytes
  std::uint16_t* values;          ///< of the slab, by padded row, dense rows
};

/// For all the kernels.
struct TranscodeParams {
  TranscodeWorkspace workspace;
  format::TiledGeometry geometry;  ///< with one palette
  std::uint64_t batch, rows, cols;
  std::uint64_t raw_bytes;               ///< of a raw blob
  std::uint64_t first_strip, end_strip;  ///< of the slab, through all matrices
  std::uint32_t table_blocks;            ///< of encode_tiles: those that write the tables
  std::uint32_t item_tiles;              ///< of encode_tiles: tiles of a strip that a warp takes
  std::uint64_t content_checksum;        ///< that the values must have
  std::byte* out;                        ///< the runtime blob
  std::uint64_t capacity_bytes;
  std::uint64_t* outcome;        ///< distribution::TranscodeOutcome
  const std::uint32_t* only_if;  ///< null, or nothing is done where this is 0
};

inline constexpr std::uint64_t kPayloadChunkBytes = std::uint64_t{1} << 20;

/// A strip's rows that belong to its matrix: 1 to 16.
UNWEIGHT_HOST_DEVICE inline std::uint32_t strip_rows(const TranscodeParams& params, std::uint64_t strip) {
  const std::uint64_t left = params.rows - strip % params.geometry.strips * format::kTileRows;
  return static_cast<std::uint32_t>(left < format::kTileRows ? left : format::kTileRows);
}

/// Where a strip of the slab begins among its values.
UNWEIGHT_HOST_DEVICE inline std::uint16_t* strip_values(const TranscodeParams& params, std::uint64_t strip) {
  return params.workspace.values + (strip - params.first_strip) * format::kTileRows * params.cols;
}

/// Where the exceptions of a blob with so many palettes begin: all else lies where it does with one.
UNWEIGHT_HOST_DEVICE inline std::uint64_t exceptions_offset(const TranscodeParams& params,
                                                            std::uint32_t palette_count) {
  return params.geometry.palettes_offset +
         format::align_up(std::uint64_t{palette_count} * format::kPaletteSize, format::kAlignment);
}

/// Whether the blob may be written.
__device__ inline bool may_write(const TranscodeParams& params) {
  const TranscodeState& state = *params.workspace.state;
  const std::uint64_t status = state.status,
                      blob_bytes = state.blob_bytes;  // both are asked for before one is looked at
  const bool fits = blob_bytes <= params.capacity_bytes;
  return fits && status == 0;
}

__device__ inline void begin_kernel() {
  ptx::wait_for_previous_grids();
  ptx::launch_dependents();
}

/// Whether all other blocks of the kernel have got here, too: of their threads, what they have written before is there
/// then. By all threads of a block.
__device__ inline bool is_last_block(const TranscodeWorkspace& workspace) {
  __shared__ std::uint32_t before;
  __syncthreads();
  if (threadIdx.x == 0) before = ptx::count_arrival(&workspace.state->arrivals, gridDim.x);
  __syncthreads();
  return before == gridDim.x - 1;
}

/// The thread's warp; from a shuffle, so that the compiler knows it to be the same in all lanes.
__device__ inline std::uint32_t warp_number() { return __shfl_sync(kAllLanes, threadIdx.x / kLanes, 0); }

__device__ inline bool is_skipped(const TranscodeParams& params) {
  return params.only_if != nullptr && *params.only_if == 0;
}

/// Number of a palette in the blob, which has it.
__device__ inline std::uint32_t palette_number(const TranscodeState& state, PaletteKey palette) {
  std::uint32_t first = 0, count = state.palette_count;
  while (count > 1) {
    const std::uint32_t half = count / 2;
    if (state.palettes[first + half] <= palette) first += half;
    count -= half;
  }
  return first;
}

template <class T>
__device__ inline T add_atomically(T* at, T value) {
  static_assert(sizeof(T) == sizeof(unsigned long long));
  return atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}

}  // namespace unweight::device
