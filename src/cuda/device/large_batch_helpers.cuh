// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_large_batch.cuh that do not multiply: one requests tiles and X, three bring exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/activation_tiles.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Brings the exceptions of a third of the strips, and says where they lie. One of three warps.
///
/// Where lists lie is a table in global memory: two latencies for a *chunk* of neighbouring columns. So a chunk is
/// copied while the one before it is in use, and its places are asked for before that. A lane has the list of one tile.
template <class Config>
struct LargeBatchLister : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Chunk = LargeBatchChunk<Config>;
  using Block::params, Block::lane;
  static constexpr std::uint32_t kColumns = Traits::kChunkColumns;
  static constexpr std::uint32_t kMostStrips = (Config::kStrips + Traits::kListers - 1) / Traits::kListers;
  static_assert(kMostStrips * kColumns <= device::kLanes && Traits::kStripListBytes <= 16 * device::kLanes);

  std::uint32_t first_strip, strips;  ///< of the block's
  Columns next;                       ///< where the chunk begins that has been asked for
  /// Of the lane's tile and the one after it, on their way from memory: an addition would wait for them.
  struct Starts {
    std::uint32_t segment[2], tile[2];
    bool exists;
  } starts{};

  __device__ LargeBatchLister(const Block& block, std::uint32_t number)
      : Block(block),
        first_strip(number * Config::kStrips / Traits::kListers),
        strips((number + 1) * Config::kStrips / Traits::kListers - first_strip),
        next(Schedule(params.deal, Block::pair())) {}

  [[nodiscard]] __device__ std::uint32_t own_strip() const { return lane / kColumns; }
  [[nodiscard]] __device__ std::uint32_t own_column() const { return lane % kColumns; }

  __device__ void ask() {
    starts = {};
    if (!next.exists()) return;
    const std::uint32_t strip = this->locate(next.segment.item).first_strip + first_strip + own_strip();
    const std::uint32_t column = next.column + own_column();
    if (own_strip() >= strips || strip >= params.strips) return;
    starts.exists = column < params.tiles_per_strip;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t tile =
          params.first_tile + strip * params.tiles_per_strip + min(column + i, params.tiles_per_strip);
      starts.segment[i] = params.segment_starts[tile / format::kTilesPerSegment];
      starts.tile[i] = params.tile_starts[tile];
    }
  }

  /// Copies the chunk whose places have come.
  __device__ void fill(std::uint32_t slot) const {
    constexpr std::uint32_t kVectorUnits = 8;  // 16 bytes
    Chunk& chunk = this->chunk(slot);
    const std::uint32_t begin = starts.segment[0] + starts.tile[0], end = starts.segment[1] + starts.tile[1];
    std::uint32_t place = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kMostStrips; ++s) {
      const std::uint32_t first = __shfl_sync(device::kAllLanes, begin, s * kColumns);
      const std::uint32_t last = __shfl_sync(device::kAllLanes, end, (s + 1) * kColumns - 1);
      const std::uint32_t aligned = first / kVectorUnits * kVectorUnits;
      const std::uint32_t vectors = (last - aligned + kVectorUnits - 1) / kVectorUnits;
      if (16 * vectors > Traits::kStripListBytes) continue;  // read from global memory, by those who need them
      const std::byte* to = chunk.units[first_strip + s];
      if (lane < vectors) {
        ptx::copy_async16(ptx::shared_address(to) + 16 * lane,
                          params.exceptions + aligned + std::uint64_t{kVectorUnits} * lane);
      }
      if (own_strip() == s) place = static_cast<std::uint32_t>(to - this->shared) + 2 * (begin - aligned);
    }
    if (own_strip() < strips) {
      chunk.lists[first_strip + own_strip()][own_column()] =
          starts.exists ? device::ExceptionList::make(begin, end - begin, place) : device::ExceptionList::absent();
    }
    if (next.begins_segment()) {
      const std::uint32_t first_row = first_strip * format::kTileRows, rows = strips * format::kTileRows;
      const std::uint32_t of_matrix = this->locate(next.segment.item).first_strip * format::kTileRows + first_row;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t row = lane; row < rows; row += device::kLanes) {
        const bool inside = of_matrix + row < params.strips * format::kTileRows;
        chunk.row_palettes[first_row + row] = inside ? params.row_palettes[of_matrix + row] : std::uint8_t{0};
      }
    }
    ptx::barrier_arrive_after_async(this->chunk_full(slot));
    this->arrive(this->chunk_full(slot));
  }

  /// Before the block's threads meet.
  __device__ void begin_work() { ask(); }

  __device__ void run() {
    RingPlace place{0, 1};
    while (next.exists()) {
      ptx::barrier_wait(this->chunk_empty(place.slot), place.parity);
      fill(place.slot);
      place.advance(1, Traits::kChunks);
      next.advance(this->schedule, kColumns);
      ask();
    }
    ptx::wait_for_async_copies();
  }
};

/// Requests tiles and X. One warp, that does nothing else: who waits for X waits for the other block of the pair.
template <class Config>
struct LargeBatchRequester : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Block::params, Block::lane, Block::base, Block::shared;

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
      store_x_tiles(params, shared + to, {first_token, Traits::kSharers * params.x_share}, column, 1, lane);
      ptx::fence_async_proxy();
      this->arrive(barrier);
    } else if (lane == 0) {
      constexpr std::uint32_t kTokenBytes = 2 * format::kTileCols;
      const std::uint32_t first = this->sharer() * params.x_share;
      to += base + first * kTokenBytes;
      ptx::barrier_arrive_expect(barrier, Traits::kSharers * params.x_share * kTokenBytes);
      ptx::tensor_copy_to_blocks(to, &this->x_map, first_token + first, column, barrier,
                                 3U << this->first_rank(this->part));
    }
  }

  /// Columns of W that are requested before the block's threads have met.
  [[nodiscard]] __device__ std::uint32_t columns_requested_first() const {
    const Segment first = Schedule::first_segment(params.deal, Block::pair());
    return min(Traits::kSlots, (first.end - first.begin) * Traits::kStageColumns);
  }

  /// Before the block's threads meet.
  __device__ void begin_work() const {
    if (lane == 0) {
      this->init_barriers();
      const Segment first = Schedule::first_segment(params.deal, Block::pair());
      const std::uint32_t strip = this->locate(first.item).first_strip;
      for (std::uint32_t i = 0; i < columns_requested_first(); ++i) {
        request_weights(strip, first.begin * Traits::kStageColumns + i, i);
      }
    }
    __syncwarp();
  }

  __device__ void run() const {
    ptx::wait_for_previous_grids();
    const std::uint32_t requested = columns_requested_first();
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    for (std::uint32_t n = 0;; ++n) {
      const Segment segment = this->schedule.segment(n);
      if (!segment.exists()) break;
      const auto item = this->locate(segment.item);
      const std::uint32_t begin = segment.begin * Traits::kStageColumns, end = segment.end * Traits::kStageColumns;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t column = begin; column < end; ++column, ++count) {
        // Not for the first tiles of a slot: those requested already may have come and been read, and `empty` be a
        // phase further than this looks for.
        if (count >= Traits::kSlots) ptx::barrier_wait(this->empty(place.slot), place.parity);
        if (lane == 0 && count >= requested) request_weights(item.first_strip, column, place.slot);
        ptx::barrier_wait(this->x_empty(place.slot), place.parity);
        request_x(item.first_token, column, place.slot);
        __syncwarp();  // lanes that were left behind could miss a phase, and would wait for ever
        place.advance(1, Traits::kSlots);
      }
    }
  }
};

}  // namespace unweight::sm90
