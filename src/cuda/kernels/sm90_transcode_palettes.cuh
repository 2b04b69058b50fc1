// SPDX-License-Identifier: Apache-2.0
//
// The palettes of a runtime blob (docs/FORMAT.md, section 6.1 to 6.3), from decoded values, in three kernels:
//
//   row_palettes   a warp a row: counts its exponents, chooses its palette, enters that into a hash table
//   dictionary     one block: the blob's palettes in order, which are all that rows have, or the 256 most frequent; and
//                  the base: the exponents that entries of exceptions can hold
//   nearest        only where there were more: rows without theirs take the one that covers most of them. Then, by its
//                  last block, the base
//
//   bytes  16 bits a value in. 28672 x 4096: 235 MB, 78 us at 3.0 TB/s.
//   work   8 instructions a value and some 800 a row.
//
// Counts only add up, so the outcome does not depend on the order of the rows.
#pragma once

#include <cstdint>
#include <cuda/device/row_counts.cuh>
#include <cuda/device/row_palette.cuh>
#include <cuda/device/transcode_state.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::sm90 {

struct RowPalettesConfig {
  static constexpr std::uint32_t kWarps = 4;
  static constexpr std::uint32_t kBlocksPerSm = 5;
  static constexpr std::uint32_t kRegisterBlocks = 9;  ///< as few registers as these would have leave room for hashes
  static constexpr std::uint32_t kThreads = kWarps * device::kLanes;
};

/// Adds `rows` rows' palette to the hash table, and to the list where it is new. By one thread.
__device__ inline void enter_palette(const device::TranscodeWorkspace& workspace, device::PaletteKey palette,
                                     std::uint32_t rows) {
  const std::uint64_t mixed = palette * 0x9e3779b97f4a7c15ULL;
  std::uint64_t slot = (mixed >> 32) * workspace.slot_count >> 32;
  while (true) {
    device::PaletteKey found = workspace.slots[slot];
    if (found == 0) {
      found = atomicCAS(reinterpret_cast<unsigned long long*>(workspace.slots + slot), 0ULL,
                        static_cast<unsigned long long>(palette));
    }
    if (found == 0) {
      const std::uint32_t number = atomicAdd(&workspace.state->found_count, 1U);
      if (number < format::kMaxPalettes) workspace.state->found[number] = palette;
    }
    if (found == 0 || found == palette) break;
    if (++slot == workspace.slot_count) slot = 0;
  }
  device::add_atomically(workspace.slot_rows + slot, std::uint64_t{rows});
}

/// What rows of a slab have in common.
struct RowPlace {
  std::uint64_t padded_row;
  std::uint32_t padding;  ///< rows that are not there: those that follow, where the row is the first of such a strip
};

/// How often the exponents outside of rows' palettes occur: a block's sums.
struct OutsideSums {
  unsigned long long of[device::kExponents];

  __device__ void clear() {
    for (std::uint32_t e = threadIdx.x; e < device::kExponents; e += RowPalettesConfig::kThreads) of[e] = 0;
    __syncthreads();
  }
  __device__ void add(const device::LaneCounts& counts, std::uint32_t lane_members, std::uint32_t lane) {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < device::kLaneExponents; ++i) {
      if (counts.of[i] != 0 && (lane_members >> i & 1) == 0) {
        atomicAdd(of + device::kLaneExponents * lane + i, static_cast<unsigned long long>(counts.of[i]));
      }
    }
  }
  __device__ void add_to(std::uint64_t* totals) {
    __syncthreads();
    for (std::uint32_t e = threadIdx.x; e < device::kExponents; e += RowPalettesConfig::kThreads) {
      if (of[e] != 0) device::add_atomically(totals + e, std::uint64_t{of[e]});
    }
  }
};

/// Calls body(place, counts) for the warp's rows of the slab.
template <class Body>
__device__ void for_rows(const device::TranscodeParams& params, device::RowCounter& counter, std::uint32_t warp,
                         const Body& body) {
  const bool by_vectors = params.cols % 8 == 0;
  const std::uint64_t end = params.end_strip * format::kTileRows;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * RowPalettesConfig::kWarps;
  for (std::uint64_t row = params.first_strip * format::kTileRows + blockIdx.x * RowPalettesConfig::kWarps + warp;
       row < end; row += stride) {
    const std::uint64_t strip = row / format::kTileRows;
    const auto row_in_strip = static_cast<std::uint32_t>(row % format::kTileRows);
    const std::uint32_t rows = device::strip_rows(params, strip);
    if (row_in_strip >= rows) continue;
    const std::uint16_t* values = device::strip_values(params, strip) + row_in_strip * params.cols;
    const device::LaneCounts counts = counter.count(values, params.cols, by_vectors);
    body(RowPlace{row, row_in_strip == 0 ? format::kTileRows - rows : 0}, counts);
  }
}

/// Stores a row's palette, and that of the padding that follows the strip.
__device__ inline void store_palette(const device::TranscodeParams& params, const RowPlace& place,
                                     device::PaletteKey palette, std::uint32_t lane) {
  device::PaletteKey* const strip = params.workspace.row_palettes + place.padded_row;
  if (lane == 0) *strip = palette;
  if (lane < place.padding) strip[format::kTileRows - place.padding + lane] = palette;
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kRegisterBlocks)
    row_palettes_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ device::LaneCounters counters[Config::kWarps];
  __shared__ OutsideSums outside;
  // In this order: strip_hashes, which may begin now, relies on the values being there.
  device::begin_kernel();
  const std::uint32_t warp = device::warp_number(), lane = threadIdx.x % device::kLanes;
  outside.clear();
  device::RowCounter counter(counters[warp], lane);
  counter.clear();
  for_rows(params, counter, warp, [&](const RowPlace& place, const device::LaneCounts& counts) {
    const device::ChosenPalette palette = device::choose_palette(counts, params.cols, lane);
    store_palette(params, place, palette.key, lane);
    if (lane == 0) enter_palette(params.workspace, palette.key, 1 + place.padding);
    outside.add(counts, palette.lane_members, lane);
  });
  outside.add_to(params.workspace.state->outside);
}

/// The lowest base whose window of exponents covers most exceptions; all lanes of a warp get it.
/// @param outside  how often each exponent occurs outside its row's palette
__device__ inline std::uint32_t best_exception_base(const std::uint64_t* outside, std::uint32_t lane) {
  constexpr std::uint32_t kLaneBases = format::kMaxExceptionBase / device::kLanes + 1;
  std::uint64_t covered = 0, most = 0;
  std::uint32_t best = 0;
  UNWEIGHT_NO_UNROLL
  for (std::uint32_t base = lane * kLaneBases; base < (lane + 1) * kLaneBases; ++base) {
    if (base > format::kMaxExceptionBase) break;
    if (base == lane * kLaneBases) {
      for (std::uint32_t i = 1; i <= format::kExceptionWindow; ++i) covered += outside[base + i];
      most = covered;
      best = base;
      continue;
    }
    covered += outside[base + format::kExceptionWindow] - outside[base];
    if (covered > most) {
      most = covered;
      best = base;
    }
  }
  // Of the best of all lanes', the first: lanes have their bases in order.
  std::uint32_t owner = lane;
  UNWEIGHT_UNROLL
  for (std::uint32_t distance = 1; distance < device::kLanes; distance *= 2) {
    const std::uint32_t low = __shfl_xor_sync(device::kAllLanes, static_cast<std::uint32_t>(most), distance);
    const std::uint32_t high = __shfl_xor_sync(device::kAllLanes, static_cast<std::uint32_t>(most >> 32), distance);
    const std::uint32_t other = __shfl_xor_sync(device::kAllLanes, owner, distance);
    const std::uint64_t other_most = std::uint64_t{high} << 32 | low;
    if (other_most > most || (other_most == most && other < owner)) {
      most = other_most;
      owner = other;
    }
  }
  return __shfl_sync(device::kAllLanes, best, owner);
}

/// By a warp.
/// @param outside  what state.outside is
__device__ inline void set_exception_base(device::TranscodeState& state, const std::uint64_t* outside,
                                          std::uint32_t lane) {
  const std::uint32_t base = best_exception_base(outside, lane);
  bool fit = true;
  for (std::uint32_t e = lane; e < device::kExponents; e += device::kLanes) {
    if (outside[e] == 0) continue;
    fit = fit && format::exponent_fits_entry(static_cast<std::uint8_t>(e), static_cast<std::uint8_t>(base));
  }
  fit = __all_sync(device::kAllLanes, fit);
  if (lane != 0) return;
  state.exception_base = base;
  state.exceptions_fit = fit ? 1 : 0;
}

/// As row_palettes, once the blob's palettes are known and some rows' are not among them: those get the one that covers
/// most of their values, the first such. `outside` starts at 0 again.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kRegisterBlocks)
    nearest_palettes_kernel(const __grid_constant__ device::TranscodeParams params) {
  device::begin_kernel();
  if (device::is_skipped(params)) return;
  __shared__ device::LaneCounters counters[Config::kWarps];
  __shared__ std::uint32_t row_counts[Config::kWarps][device::kExponents];
  __shared__ OutsideSums outside;
  const std::uint32_t warp = device::warp_number(), lane = threadIdx.x % device::kLanes;
  const device::TranscodeState& state = *params.workspace.state;
  outside.clear();
  device::RowCounter counter(counters[warp], lane);
  counter.clear();
  for_rows(params, counter, warp, [&](const RowPlace& place, const device::LaneCounts& counts) {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < device::kLaneExponents; ++i) {
      row_counts[warp][device::kLaneExponents * lane + i] = counts.of[i];
    }
    __syncwarp();
    const device::PaletteKey own = params.workspace.row_palettes[place.padded_row];
    std::uint32_t number = device::palette_number(state, own);
    if (state.palettes[number] != own) {
      std::uint32_t most = 0, best = 0;  // of a lane: the most covered, and the first such palette
      for (std::uint32_t p = lane; p < state.palette_count; p += device::kLanes) {
        std::uint32_t covered = 0;
        for (std::uint32_t i = 0; i < format::kPaletteSize; ++i) {
          covered += row_counts[warp][device::palette_exponent(state.palettes[p], i)];
        }
        if (covered > most) {
          most = covered;
          best = p;
        }
      }
      const std::uint32_t most_of_all = __reduce_max_sync(device::kAllLanes, most);
      const std::uint32_t first =
          __reduce_max_sync(device::kAllLanes, most == most_of_all ? format::kMaxPalettes - best : 0);
      number = most_of_all == 0 ? 0 : format::kMaxPalettes - first;
    }
    const device::PaletteKey palette = state.palettes[number];
    std::uint32_t members = 0;
    for (std::uint32_t i = 0; i < format::kPaletteSize; ++i) {
      const std::uint32_t exponent = device::palette_exponent(palette, i);
      if (exponent / device::kLaneExponents == lane) members |= 1U << exponent % device::kLaneExponents;
    }
    outside.add(counts, members, lane);
    __syncwarp();  // all lanes have read the row's palette and counts
    store_palette(params, place, palette, lane);
  });
  outside.add_to(params.workspace.state->outside);
  // Of a part of the tensor, from what has been added so far; the last part's is the right one.
  if (device::is_last_block(params.workspace) && warp == 0) {
    set_exception_base(*params.workspace.state, params.workspace.state->outside, lane);
  }
}

// ---- the blob's palettes --------------------------------------------------------------------------------------------

struct DictionaryConfig {
  static constexpr std::uint32_t kThreads = 1024;
};

/// A palette and the number of rows that have it, in the order of preference: more rows, then lower.
struct RankedPalette {
  std::uint64_t rows;
  device::PaletteKey palette;

  [[nodiscard]] __device__ bool comes_before(const RankedPalette& other) const {
    return rows != other.rows ? rows > other.rows : palette < other.palette;
  }
};

template <class Config>
struct DictionaryStorage {
  device::PaletteKey chosen[format::kMaxPalettes];
  std::uint64_t outside[device::kExponents];  ///< state.outside, which is read too often to be read from memory
  RankedPalette best[Config::kThreads];
};

/// Chooses the 256 most frequent palettes of more, one after the other: it happens with noise alone.
template <class Config>
__device__ void choose_most_frequent(const device::TranscodeWorkspace& workspace, DictionaryStorage<Config>& storage) {
  RankedPalette last{UINT64_MAX, 0};
  for (std::uint32_t k = 0; k < format::kMaxPalettes; ++k) {
    RankedPalette best{0, UINT64_MAX};
    for (std::uint64_t slot = threadIdx.x; slot < workspace.slot_count; slot += Config::kThreads) {
      const RankedPalette candidate{workspace.slot_rows[slot], workspace.slots[slot]};
      if (candidate.palette != 0 && last.comes_before(candidate) && candidate.comes_before(best)) best = candidate;
    }
    storage.best[threadIdx.x] = best;
    __syncthreads();
    for (std::uint32_t half = Config::kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half && storage.best[threadIdx.x + half].comes_before(storage.best[threadIdx.x])) {
        storage.best[threadIdx.x] = storage.best[threadIdx.x + half];
      }
      __syncthreads();
    }
    last = storage.best[0];
    if (threadIdx.x == 0) storage.chosen[k] = last.palette;
    __syncthreads();
  }
}

/// One block.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    dictionary_kernel(const __grid_constant__ device::TranscodeParams params) {
  __shared__ DictionaryStorage<Config> storage;
  device::begin_kernel();
  const device::TranscodeWorkspace& workspace = params.workspace;
  device::TranscodeState& state = *workspace.state;
  // What one thread or another needs is all asked for at once.
  static_assert(device::kExponents <= Config::kThreads && format::kMaxPalettes <= Config::kThreads);
  if (threadIdx.x < device::kExponents) storage.outside[threadIdx.x] = state.outside[threadIdx.x];
  const device::PaletteKey found = threadIdx.x < format::kMaxPalettes ? state.found[threadIdx.x] : 0;
  const bool too_many = state.found_count > format::kMaxPalettes;
  const std::uint32_t count = too_many ? format::kMaxPalettes : state.found_count;
  if (too_many) {
    choose_most_frequent(workspace, storage);
  } else {
    if (threadIdx.x < count) storage.chosen[threadIdx.x] = found;
    __syncthreads();
  }
  if (threadIdx.x < count) {
    const device::PaletteKey mine = storage.chosen[threadIdx.x];
    std::uint32_t before = 0;
    for (std::uint32_t i = 0; i < count; ++i) before += storage.chosen[i] < mine ? 1 : 0;
    state.palettes[before] = mine;
  }
  if (threadIdx.x == 0) {
    state.palette_count = count;
    state.too_many_palettes = too_many ? 1 : 0;
  }
  if (too_many) {
    if (threadIdx.x < device::kExponents) state.outside[threadIdx.x] = 0;
  } else if (device::warp_number() == Config::kThreads / device::kLanes - 1) {  // it has no palette to place
    set_exception_base(state, storage.outside, threadIdx.x % device::kLanes);
  }
}

}  // namespace unweight::sm90
