// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_small_batch.cuh that fill the rings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Requests tiles, and X where it lies in the same slots. One warp, of which one lane does nearly everything.
template <class Config>
struct SmallBatchTileProducer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map;

  /// Stages that are requested before the block's threads have met.
  static constexpr std::uint32_t kFirstStages = 2;

  /// The producer's arrival: the slot is full when these bytes have come.
  __device__ void expect(std::uint32_t slot) const {
    std::uint32_t bytes = !Traits::kXApart && params.x_by_tensor_copy ? Traits::kXBytes : 0;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) bytes += Traits::kWeightBytes;
    } else {
      bytes += Traits::kWeightBytes;
    }
    ptx::barrier_arrive_expect(this->full(slot), bytes);
  }

  __device__ void copy_weights(std::uint32_t item, std::uint32_t step, std::uint32_t slot) const {
    const std::uint32_t to = base + map.weights + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) {
        ptx::tensor_copy(to, &this->w_map, item * Traits::kItemRows, step * Traits::kColTiles, this->full(slot));
      }
    } else {
      ptx::tile_copy(to, &this->w_map, step * Traits::kColTiles, item * Config::kStrips, this->full(slot),
                     ptx::evict_first_policy());
    }
  }

  // Stages of the first segment that have been requested.
  std::uint32_t tiles_requested = 0, x_requested = 0;

  [[nodiscard]] __device__ bool x_here() const { return !Traits::kXApart; }
  [[nodiscard]] __device__ bool x_stored() const { return x_here() && !params.x_by_tensor_copy; }

  /// Tiles do not wait for the kernel in front of a dependent launch. Where X need not either it goes first, since
  /// copies run in order and X must not wait behind many tiles.
  __device__ void begin() {
    this->init_barriers();
    if (lane != 0 || x_stored()) return;
    if (x_here()) ptx::prefetch_tensor_map(&this->x_map);
    const SmallBatchSegment first = SmallBatchSchedule::first_segment(params.deal, blockIdx.x);
    tiles_requested = min(kFirstStages, first.end - first.begin);
    if (x_here() && !params.dependent) x_requested = tiles_requested;
    for (std::uint32_t slot = 0; slot < tiles_requested; ++slot) {
      expect(slot);
      if (slot < x_requested) this->copy_x(first.begin + slot, slot, this->full(slot));
      copy_weights(first.item, first.begin + slot, slot);
    }
  }

  __device__ void run() {
    if (!x_stored() && lane != 0) return;
    std::uint32_t n = 0;
    SmallBatchSegment now = this->schedule.segment(0);
    if (x_here() && params.dependent && !x_stored()) {
      for (; tiles_requested < min(params.stages, now.end - now.begin); ++tiles_requested) {
        expect(tiles_requested);
        copy_weights(now.item, now.begin + tiles_requested, tiles_requested);
      }
    }
    if (x_here()) ptx::wait_for_previous_grids();
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    for (; now.exists(); now = this->schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        const std::uint32_t slot = place.slot;
        if (count >= params.stages) ptx::barrier_wait(this->empty(slot), place.parity);
        if (x_stored()) this->store_x(step, slot, this->full(slot));
        if (lane == 0) {
          if (count >= tiles_requested) expect(slot);
          if (x_here() && !x_stored() && count >= x_requested) this->copy_x(step, slot, this->full(slot));
          if (count >= tiles_requested) copy_weights(now.item, step, slot);
        }
        place.advance(params.stages);
      }
    }
  }
};

/// Requests X where it has slots of its own. One warp.
template <class Config>
struct SmallBatchXProducer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;

  __device__ void run() const {
    const bool by_tensor_copy = this->params.x_by_tensor_copy;
    if (by_tensor_copy && this->lane == 0) ptx::prefetch_tensor_map(&this->x_map);
    ptx::wait_for_previous_grids();
    RingPlace place{0, 1};
    std::uint32_t count = 0, n = 0;
    for (SmallBatchSegment now = this->schedule.segment(0); now.exists(); now = this->schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        const std::uint32_t barrier = this->x_full(place.slot);
        if (count >= Traits::kXSlots) ptx::barrier_wait(this->x_empty(place.slot), place.parity);
        if (!by_tensor_copy) {
          this->store_x(step, place.slot, barrier);
        } else if (this->lane == 0) {
          ptx::barrier_arrive_expect(barrier, Traits::kXBytes);
          this->copy_x(step, place.slot, barrier);
        }
        place.advance(Traits::kXSlots);
      }
    }
  }
};

/// Fills the slots' exceptions: one warp. Their places are tables in global memory, loaded some stages ahead.
template <class Config>
struct SmallBatchExceptionProducer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map, Block::shared, Block::schedule;
  using Stage = SmallBatchStage<Config>;
  static constexpr std::uint32_t kStartsPerStrip = Traits::kColTiles + 1;
  static constexpr std::uint32_t kAhead = 4;  ///< stages

  /// The sequence of the block's stages.
  struct Cursor {
    std::uint32_t n;
    SmallBatchSegment segment;
    std::uint32_t step;

    __device__ void advance(const SmallBatchSchedule& schedule) {
      if (++step < segment.end) return;
      segment = schedule.segment(++n);
      step = segment.begin;
    }
  };

  /// A stage to come.
  struct Work {
    bool exists, begins_segment;
    std::uint32_t item;
    /// Together the unit at which the exceptions of the lane's tile begin. On their way from memory: an addition, or a
    /// move to other registers, would wait for them.
    std::uint32_t segment_start, tile_start;
  };

  /// The lane's strip of an item and tile of that strip's part of a stage; kColTiles is the tile after the last.
  [[nodiscard]] __device__ std::uint32_t strip_in_item() const { return lane / kStartsPerStrip; }
  [[nodiscard]] __device__ std::uint32_t tile_in_stage() const { return lane % kStartsPerStrip; }

  Cursor cursor{};
  Work ahead[kAhead]{};

  __device__ void look_ahead(Work& work) {
    const SmallBatchSegment& segment = cursor.segment;
    work.exists = segment.exists();
    if (!work.exists) return;
    work.begins_segment = cursor.step == segment.begin;
    work.item = segment.item;
    const std::uint32_t strip = segment.item * Config::kStrips + strip_in_item();
    if (strip_in_item() < Config::kStrips && strip < params.strips) {
      const std::uint32_t column = min(cursor.step * Traits::kColTiles + tile_in_stage(), params.tiles_per_strip);
      const std::uint32_t tile = params.first_tile + strip * params.tiles_per_strip + column;
      work.segment_start = params.segment_starts[tile / format::kTilesPerSegment];
      work.tile_start = params.tile_starts[tile];
    }
    cursor.advance(schedule);
  }

  __device__ void fill(const Work& work, std::uint32_t slot) const {
    Stage& stage = reinterpret_cast<Stage*>(shared + map.stages)[slot];
    const std::uint32_t start = work.segment_start + work.tile_start;
    const std::uint32_t strip = strip_in_item(), column = tile_in_stage();
    const std::uint32_t first_lane = min(strip, Config::kStrips - 1) * kStartsPerStrip;
    const std::uint32_t begin = __shfl_sync(device::kAllLanes, start, first_lane);
    const std::uint32_t end = __shfl_sync(device::kAllLanes, start, first_lane + Traits::kColTiles);
    const std::uint32_t next = __shfl_down_sync(device::kAllLanes, start, 1);
    const std::uint32_t first_strip = work.item * Config::kStrips;
    if (strip < Config::kStrips && column < Traits::kColTiles && first_strip + strip < params.strips) {
      constexpr std::uint32_t kVectorUnits = 8;  // 16 bytes
      const std::uint32_t aligned = begin / kVectorUnits * kVectorUnits;
      const bool fits = 2 * (end - aligned) <= Traits::kExceptionBytes;
      const std::uint32_t room = map.exceptions + (slot * Config::kStrips + strip) * Traits::kExceptionBytes;
      stage.lists[strip * Traits::kColTiles + column] =
          device::ExceptionList::make(start, next - start, fits ? room + 2 * (start - aligned) : 0);
      // kColTiles lanes of a strip copy its vectors.
      const std::uint32_t vectors = fits ? (end - aligned + kVectorUnits - 1) / kVectorUnits : 0;
      const std::uint32_t to = base + room;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t v = column; v < vectors; v += Traits::kColTiles) {
        ptx::copy_async16(to + 16 * v, params.exceptions + aligned + std::uint64_t{kVectorUnits} * v);
      }
    }
    if (work.begins_segment && lane < min(Config::kStrips, params.strips - first_strip)) {
      ptx::copy_async16(ptx::shared_address(stage.row_palettes) + lane * format::kTileRows,
                        params.row_palettes + std::uint64_t{first_strip + lane} * format::kTileRows);
    }
    ptx::barrier_arrive_after_async(this->full(slot));
    this->arrive(this->full(slot));
  }

  __device__ void begin() {
    cursor.segment = schedule.segment(0);
    cursor.step = cursor.segment.begin;
    UNWEIGHT_UNROLL
    for (Work& work : ahead) look_ahead(work);
  }

  __device__ void run() {
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    bool more = true;
    while (more) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kAhead; ++i) {
        Work& work = ahead[i];
        more = work.exists;
        if (!more) break;
        if (count >= params.stages) ptx::barrier_wait(this->empty(place.slot), place.parity);
        fill(work, place.slot);
        look_ahead(work);
        ++count;
        place.advance(params.stages);
      }
    }
    ptx::wait_for_async_copies();
  }
};

}  // namespace unweight::sm90
