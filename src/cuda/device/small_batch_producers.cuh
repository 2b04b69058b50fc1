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

/// Fills slots: tiles, X where it lies in the same slots, and exceptions, whose places are tables in global memory,
/// loaded some stages ahead. Two warps, which take turns, since the exceptions of a stage cost a warp nearly the time
/// in which a stage's bytes come.
template <class Config>
struct SmallBatchProducer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map, Block::shared;
  using Stage = SmallBatchStage<Config>;
  static constexpr std::uint32_t kStartsPerStrip = Traits::kColTiles + 1;
  static constexpr std::uint32_t kAhead = 3;        ///< stages of its own
  static constexpr std::uint32_t kFirstStages = 2;  ///< requested before the block's threads have met

  /// A stage to come.
  struct Work {
    bool exists, begins_segment;
    std::uint32_t item, step;
    /// Together the unit at which the exceptions of the lane's tile begin. On their way from memory: an addition, or a
    /// move to other registers, would wait for them.
    std::uint32_t segment_start, tile_start;
  };

  std::uint32_t number;  ///< of the producer: it takes stages number, number + kProducers, ...
  Work ahead[kAhead]{};
  /// Where the stage after those lies, if it exists: segment n of the schedule.
  std::uint32_t n = 0;
  Segment segment{};
  std::uint32_t step = 0;

  [[nodiscard]] __device__ bool x_here() const { return !Traits::kXApart; }
  [[nodiscard]] __device__ bool x_stored() const { return x_here() && !params.x_by_tensor_copy; }
  [[nodiscard]] __device__ bool x_copied() const { return x_here() && params.x_by_tensor_copy; }

  // ---- the sequence of stages ---------------------------------------------------------------------------------------

  __device__ void advance(const Schedule& whole, std::uint32_t stages) {
    step += stages;
    while (segment.exists() && step >= segment.end) {
      const std::uint32_t beyond = step - segment.end;
      segment = whole.segment(++n);
      step = segment.begin + beyond;
    }
  }

  /// The lane's strip of an item and tile of that strip's part of a stage; kColTiles is the tile after the last.
  [[nodiscard]] __device__ std::uint32_t strip_in_item() const { return lane / kStartsPerStrip; }
  [[nodiscard]] __device__ std::uint32_t tile_in_stage() const { return lane % kStartsPerStrip; }

  __device__ void look_ahead(const Schedule& whole, Work& work) {
    work.exists = segment.exists();
    if (!work.exists) return;
    work.begins_segment = step == segment.begin;
    work.item = segment.item;
    work.step = step;
    if constexpr (!Config::kRaw) {
      const std::uint32_t strip = work.item * Config::kStrips + strip_in_item();
      if (strip_in_item() < Config::kStrips && strip < params.strips) {
        const std::uint32_t column = min(step * Traits::kColTiles + tile_in_stage(), params.tiles_per_strip);
        const std::uint32_t tile = params.first_tile + strip * params.tiles_per_strip + column;
        work.segment_start = params.segment_starts[tile / format::kTilesPerSegment];
        work.tile_start = params.tile_starts[tile];
      }
    }
    advance(whole, Traits::kProducers);
  }

  // ---- requests, by one lane ----------------------------------------------------------------------------------------

  /// The producer's arrival: the slot is full when these bytes have come.
  __device__ void expect(std::uint32_t slot) const {
    std::uint32_t bytes = x_copied() ? Traits::kColTiles * params.x_tile_bytes() : 0;
    if (!Config::kRaw || params.raw_by_tensor_copy) bytes += Traits::kWeightBytes;
    ptx::barrier_arrive_expect(this->full(slot), bytes);
  }

  __device__ void copy_weights(std::uint32_t item, std::uint32_t at_step, std::uint32_t slot) const {
    const std::uint32_t to = base + map.weights + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) {
        ptx::tensor_copy(to, &this->w_map, item * Traits::kItemRows, at_step * Traits::kColTiles, this->full(slot));
      }
    } else {
      ptx::tile_copy(to, &this->w_map, at_step * Traits::kColTiles, item * Config::kStrips, this->full(slot),
                     ptx::evict_first_policy());
    }
  }

  __device__ void request(const Work& work, std::uint32_t slot, bool with_x) const {
    expect(slot);
    // X goes first, since copies run in order and X must not wait behind many tiles.
    if (with_x && x_copied()) this->copy_x(work.step * Traits::kColTiles, slot, this->full(slot));
    copy_weights(work.item, work.step, slot);
  }

  // ---- exceptions, by the warp --------------------------------------------------------------------------------------

  __device__ void fill_exceptions(const Work& work, std::uint32_t slot) const {
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

  // ---- the warp's work ----------------------------------------------------------------------------------------------

  /// By a warp that need not be a producer: requests the first stages and sets up the barriers, while the producers ask
  /// where their first exceptions lie.
  __device__ void request_first() const {
    this->init_full(0, kFirstStages);
    if (lane == 0) {
      if (x_copied()) ptx::prefetch_tensor_map(&this->x_map);
      const Segment first = Schedule::first_segment(params.deal, blockIdx.x);
      for (std::uint32_t slot = 0; slot < stages_requested_first(first); ++slot) {
        request({true, false, first.item, first.begin + slot, 0, 0}, slot, !params.dependent);
      }
    }
    __syncwarp();
    this->init_full(kFirstStages, params.stages);
    this->init_others();
  }

  [[nodiscard]] __device__ std::uint32_t stages_requested_first(const Segment& first) const {
    return x_stored() ? 0 : min(kFirstStages, first.end - first.begin);
  }

  __device__ void begin() {
    segment = Schedule::first_segment(params.deal, blockIdx.x);
    step = segment.begin;
    const Schedule whole(params.deal, blockIdx.x);  // the shared one is not written yet
    advance(whole, number);
    UNWEIGHT_UNROLL
    for (Work& work : ahead) look_ahead(whole, work);
    if (number == 0 && lane == 0) this->write_schedule(whole);
  }

  __device__ void run() {
    const Segment first = this->schedule.segment(0);
    const std::uint32_t requested = stages_requested_first(first);
    // Of stages before `early` X comes later than the tiles: it may be what the kernel in front writes.
    const std::uint32_t early = x_copied() && params.dependent ? min(params.stages, first.end - first.begin) : 0;
    bool x_awaited = x_here();
    const auto await_x = [&] {
      if (!x_awaited) return;
      x_awaited = false;
      ptx::wait_for_previous_grids();
      for (std::uint32_t slot = number; slot < early; slot += Traits::kProducers) {
        if (lane == 0) this->copy_x((first.begin + slot) * Traits::kColTiles, slot, this->full(slot));
      }
    };
    RingPlace place{0, 1};
    place.advance(number, params.stages);
    std::uint32_t count = number;
    bool more = true;
    while (more) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kAhead; ++i) {
        Work& work = ahead[i];
        more = work.exists;
        if (!more) break;
        if (count >= early) await_x();
        if (count >= params.stages) ptx::barrier_wait(this->empty(place.slot), place.parity);
        if (lane == 0 && count >= requested) request(work, place.slot, count >= early);
        if (x_stored()) this->store_x(work.step * Traits::kColTiles, place.slot, this->full(place.slot));
        if constexpr (!Config::kRaw) fill_exceptions(work, place.slot);
        look_ahead(this->schedule, work);
        count += Traits::kProducers;
        place.advance(Traits::kProducers, params.stages);
      }
    }
    await_x();
    if constexpr (!Config::kRaw) ptx::wait_for_async_copies();
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
    for (Segment now = this->schedule.segment(0); now.exists(); now = this->schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        const std::uint32_t barrier = this->x_full(place.slot), tile = step * Traits::kColTiles;
        if (count >= Traits::kXSlots) ptx::barrier_wait(this->x_empty(place.slot), place.parity);
        if (!by_tensor_copy) {
          this->store_x(tile, place.slot, barrier);
        } else if (this->lane == 0) {
          ptx::barrier_arrive_expect(barrier, Traits::kColTiles * this->params.x_tile_bytes());
          this->copy_x(tile, place.slot, barrier);
        }
        place.advance(1, Traits::kXSlots);
      }
    }
  }
};

}  // namespace unweight::sm90
