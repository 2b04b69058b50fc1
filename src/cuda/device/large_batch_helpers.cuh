// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_large_batch.cuh that do not multiply: they request tiles and X, and prepare exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/activation_tiles.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/device/tile_patch.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// One of four warps. Each prepares the exceptions of a quarter of the strips; the first also requests tiles, the second
/// X, since those wait for different things.
///
/// Where a tile's exceptions lie is a table in global memory, and they themselves lie there, too: two latencies, so both
/// are asked for ahead. A lane holds the place of one tile's list: neighbouring columns of the warp's strips, a *chunk*,
/// and the chunk after it is on its way.
template <class Config>
struct LargeBatchHelper : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Block::params, Block::lane, Block::base, Block::shared;
  static constexpr std::uint32_t kTilesOfWeights = 0, kTilesOfX = 1;  ///< numbers of the warps that request
  static constexpr std::uint32_t kTiles = Config::kStrips / Traits::kHelpers;  ///< of a column, that the warp prepares
  static constexpr std::uint32_t kChunkColumns = device::kLanes / kTiles;
  static constexpr std::uint32_t kAhead = 2;  ///< columns

  std::uint32_t number;

  // ---- where lists lie ----------------------------------------------------------------------------------------------

  /// Of the lane's tile and the one after it, on their way from memory: an addition would wait for them.
  struct Starts {
    std::uint32_t segment[2], tile[2];
  };
  static constexpr std::uint16_t kAbsent = 0xffff;  ///< a count, of a tile outside the matrix

  /// Of a chunk.
  __device__ Starts ask_starts(const Segment& segment, std::uint32_t first_column) const {
    Starts starts{{0, kAbsent}, {0, 0}};
    if (!segment.exists()) return starts;
    const std::uint32_t strip = this->locate(segment.item).first_strip + number * kTiles + lane / kChunkColumns;
    const std::uint32_t column = first_column + lane % kChunkColumns;
    if (strip < params.strips && column < params.tiles_per_strip) {
      const std::uint32_t tile = params.first_tile + strip * params.tiles_per_strip + column;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        starts.segment[i] = params.segment_starts[(tile + i) / format::kTilesPerSegment];
        starts.tile[i] = params.tile_starts[tile + i];
      }
    }
    return starts;
  }

  // ---- columns to come ----------------------------------------------------------------------------------------------

  struct Work {
    bool exists;
    std::uint32_t first_strip, first_token, column;
    std::uint16_t count[kTiles];  ///< of units; or kAbsent
    std::uint16_t unit[kTiles];   ///< the lane's, on their way from memory
    bool begins_segment;
    std::uint8_t palettes[kTiles / 2];  ///< likewise, of rows lane, lane + 32, ..., where a segment begins
  };
  Work ahead[kAhead]{};
  Columns next;      ///< the column after those
  typename Block::Item item{};  ///< and what its item is
  Starts coming{};   ///< the lists of the chunk after this one
  std::uint32_t begin = 0, count = 0;             ///< the lane's list of this chunk
  std::uint32_t chunk_n = ~0U, chunk_column = 0;  ///< of which segment it is, and its first column

  __device__ LargeBatchHelper(const Block& block, std::uint32_t number_in)
      : Block(block), number(number_in), next(Schedule(block.params.deal, Block::pair())) {}

  __device__ void ask_palettes(Work& work) const {
    const std::uint32_t first_row = (work.first_strip + number * kTiles) * format::kTileRows;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kTiles / 2; ++i) {
      const std::uint32_t row = first_row + i * device::kLanes + lane;
      work.palettes[i] = row < params.strips * format::kTileRows ? params.row_palettes[row] : std::uint8_t{0};
    }
  }

  __device__ void look_ahead(const Schedule& whole, Work& work) {
    work.exists = next.exists();
    if (!work.exists) return;
    work.begins_segment = next.column == next.segment.begin * Traits::kStageColumns;
    if (work.begins_segment) item = this->locate(next.segment.item);
    work.first_strip = item.first_strip;
    work.first_token = item.first_token;
    work.column = next.column;
    if constexpr (!Config::kRaw) {
      if (work.begins_segment) ask_palettes(work);
      if (next.n != chunk_n || next.column - chunk_column >= kChunkColumns) {
        begin = coming.segment[0] + coming.tile[0];
        count = coming.segment[1] + coming.tile[1] - begin;
        chunk_n = next.n;
        chunk_column = next.column;
        const std::uint32_t after = chunk_column + kChunkColumns;
        const Segment then = after < next.end() ? next.segment : whole.segment(next.n + 1);
        coming = ask_starts(then, after < next.end() ? after : then.begin * Traits::kStageColumns);
      }
      UNWEIGHT_UNROLL
      for (std::uint32_t j = 0; j < kTiles; ++j) {
        const std::uint32_t from = j * kChunkColumns + next.column - chunk_column;
        const std::uint32_t list_begin = __shfl_sync(device::kAllLanes, begin, from);
        work.count[j] = static_cast<std::uint16_t>(__shfl_sync(device::kAllLanes, count, from));
        work.unit[j] = 0;
        if (lane < work.count[j] && work.count[j] != kAbsent) work.unit[j] = params.exceptions[list_begin + lane];
      }
    }
    next.advance(whole);
  }

  // ---- exceptions ---------------------------------------------------------------------------------------------------

  /// Fills the patches of the warp's tiles in a slot, and arrives.
  __device__ void prepare(const Work& work, std::uint32_t slot) const {
    const std::uint32_t first = slot * Config::kStrips + number * kTiles;
    auto* patches = reinterpret_cast<device::TilePatch*>(shared + Map::kPatches) + first;
    auto* lists = reinterpret_cast<device::ExceptionList*>(shared + Map::kLists) + first;
    UNWEIGHT_UNROLL
    for (std::uint32_t j = 0; j < kTiles; ++j) {
      // Of an absent tile: exponents 0, as sign and mantissa are.
      const std::uint32_t all = work.count[j] == kAbsent ? device::kAllFirstException : device::kNoException;
      patches[j].selectors[lane] = make_uint4(all, all, all, all);
      if (work.count[j] == kAbsent) patches[j].exceptions[lane] = make_uint2(0, 0);
    }
    __syncwarp();
    UNWEIGHT_UNROLL
    for (std::uint32_t j = 0; j < kTiles; ++j) {
      const std::uint32_t units = work.count[j] <= device::kUnitsPerStep ? work.count[j] : 0;
      const auto entry = device::make_patch_entry(work.unit[j], units, lane, params.exception_base);
      const bool refused = lane < units && (format::entry_is_extended(work.unit[j]) || !entry.fits);
      const bool too_long = work.count[j] > device::kUnitsPerStep && work.count[j] != kAbsent;
      const bool unusual = __any_sync(device::kAllLanes, refused) || too_long;
      if (!unusual) entry.write(patches[j]);
      if (lane == 0) lists[j] = unusual ? find_list(work, j) : device::ExceptionList{};
    }
    if (work.begins_segment) {
      std::byte* rows = shared + Map::kRows + slot * Traits::kRowBytes + number * kTiles * format::kTileRows;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kTiles / 2; ++i) rows[i * device::kLanes + lane] = std::byte{work.palettes[i]};
    }
    this->arrive(this->full(slot));
  }

  /// Where an unusual list lies.
  __device__ device::ExceptionList find_list(const Work& work, std::uint32_t j) const {
    const std::uint32_t strip = work.first_strip + number * kTiles + j;
    const std::uint32_t tile = params.first_tile + strip * params.tiles_per_strip + work.column;
    return device::ExceptionList::make(
        params.segment_starts[tile / format::kTilesPerSegment] + params.tile_starts[tile], work.count[j], 0);
  }

  // ---- requests -----------------------------------------------------------------------------------------------------

  /// By one lane: tiles of a column.
  __device__ void request_weights(std::uint32_t first_strip, std::uint32_t column, std::uint32_t slot) const {
    const std::uint32_t barrier = this->full(slot), to = base + Map::kWeights + slot * Traits::kWeightBytes;
    const bool by_tensor_copy = !Config::kRaw || params.raw_by_tensor_copy;
    ptx::barrier_arrive_expect(barrier, by_tensor_copy ? Traits::kWeightBytes : 0);
    if constexpr (!Config::kRaw) {
      ptx::tile_copy(to, &this->w_map, column, first_strip, barrier, ptx::evict_first_policy());
    } else if (by_tensor_copy) {
      ptx::tensor_copy(to, &this->w_map, first_strip * format::kTileRows, column, barrier);
    }
  }

  /// By the warp: X of a column, for both blocks of the pair this one's half of the tokens.
  __device__ void request_x(std::uint32_t first_token, std::uint32_t column, std::uint32_t slot) const {
    const std::uint32_t barrier = this->x_full(slot);
    std::uint32_t to = Map::kX + slot * Traits::kXBytes;
    if (!params.x_by_tensor_copy) {
      store_x_tiles(params, shared + to, {first_token, Traits::kTokens}, column, 1, lane);
      ptx::fence_async_proxy();
      this->arrive(barrier);
    } else if (lane == 0) {
      constexpr std::uint32_t kShare = Traits::kTokens / Traits::kSharers;
      const std::uint32_t first = this->sharer() * kShare;
      to += base + first * 2 * format::kTileCols;
      ptx::barrier_arrive_expect(barrier, Traits::kXBytes);
      ptx::tensor_copy_to_blocks(to, &this->x_map, first_token + first, column, barrier,
                                 3U << this->first_rank(this->part));
    }
  }

  // ---- the warp's work ----------------------------------------------------------------------------------------------

  /// Columns of W that are requested before the block's threads have met.
  [[nodiscard]] __device__ std::uint32_t columns_requested_first() const {
    const Segment first = Schedule::first_segment(params.deal, Block::pair());
    return min(Traits::kSlots, (first.end - first.begin) * Traits::kStageColumns);
  }

  /// Before the block's threads meet.
  __device__ void begin_work() {
    if (number == kTilesOfWeights && lane == 0) {
      this->init_barriers();
      const Segment first = Schedule::first_segment(params.deal, Block::pair());
      const std::uint32_t strip = this->locate(first.item).first_strip;
      for (std::uint32_t i = 0; i < columns_requested_first(); ++i) {
        request_weights(strip, first.begin * Traits::kStageColumns + i, i);
      }
    }
    __syncwarp();
    const Schedule whole(params.deal, Block::pair());  // the shared one is not written yet
    if constexpr (!Config::kRaw) coming = ask_starts(next.segment, next.column);
    UNWEIGHT_UNROLL
    for (Work& work : ahead) look_ahead(whole, work);
  }

  __device__ void run() {
    if (Config::kRaw && number > kTilesOfX) return;
    if (number == kTilesOfX) ptx::wait_for_previous_grids();
    const std::uint32_t requested = columns_requested_first();
    RingPlace place{0, 1};
    std::uint32_t n = 0;
    bool more = true;
    while (more) {
      UNWEIGHT_UNROLL
      for (Work& work : ahead) {
        more = work.exists;
        if (!more) break;
        ptx::barrier_wait(this->empty(place.slot), place.parity);
        if (number == kTilesOfWeights && lane == 0 && n >= requested) {
          request_weights(work.first_strip, work.column, place.slot);
        }
        if constexpr (!Config::kRaw) prepare(work, place.slot);
        if (number == kTilesOfX) {
          ptx::barrier_wait(this->x_empty(place.slot), place.parity);
          request_x(work.first_token, work.column, place.slot);
        }
        look_ahead(this->schedule, work);
        place.advance(1, Traits::kSlots);
        ++n;
      }
    }
  }
};

}  // namespace unweight::sm90
