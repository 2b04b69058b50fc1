// SPDX-License-Identifier: Apache-2.0
//
// Fused decode and multiplication for 1 to 64 tokens: Y[M, N] = X[M, K] * W[N, K]^T + bias[N], W a blob's matrix.
//
//   in     W     tiles of 16 rows x 64 columns, 1408 B each, or raw values row-major (docs/FORMAT.md)
//          X     bf16, rows of any stride
//          bias  bf16, optional
//   out    Y     bf16, rows of any stride; sums in float
//
//   bytes  11.23 bits a weight, read once. 28672 x 4096: 165 MB, 53 us at the 3.1 TB/s of a read: the floor.
//   work   5.7 instructions a weight for up to 8 tokens, 7.2 for 64; at the floor a multiprocessor issues 13.8.
//
// An *item* is kStrips strips of 16 output features over all of K. Blocks take neighbouring items, so that the chip
// reads one region of the blob at a time; items that would leave most blocks idle are split among blocks along K
// (device/small_batch_schedule.cuh). A *stage* is what a block reads at once, 16 tiles: kStrips strips x
// kColTiles = 16 / kStrips tiles along K. One block of 19 or 20 warps a multiprocessor:
//
//   tile producer        one thread: tiles by a bulk copy a strip, X by a tensor copy      ring of slots
//   exception producer   one warp: where each tile's exceptions lie; 16-byte copies  --->  in shared memory,
//   X producer           one thread, where X has slots of its own                          full/empty barriers
//
//   16 consumer warps    wait for the slot; each takes one tile of the stage:
//                          codes -> exponents by PRMT -> own 1 KiB of shared memory
//                          patch exceptions there, one byte each; read the exponents back
//                          join them with sign+mantissa: the A operand, in registers
//                          B operand by ldmatrix, mma.sync; or four warps together and wgmma, which reads X itself and
//                          runs while the next tile is decoded
//                        at an item's end: sums to shared memory, added in the order of K, rounded, stored
//
//   messenger            one warp: tells other blocks of partial sums, waits for theirs
//
// What a warp issues for a stage is a matter of latency, not of throughput: a warp that did all of the producers' work
// needed longer than the stage's bytes. So everything that waits for memory has a warp of its own, and consumers wait
// for barriers alone.
//
// Sums: a warp adds its tiles in the order of K; then the kColTiles warps of a strip are added in order; then the
// blocks of a split item, in the order of K. So the bits of Y depend on strips, split and warpgroup of the
// configuration (with split on the number of multiprocessors too), and on nothing else: not on tokens, stages, or
// scheduling.
//
// Raw weights are the same kernel with another source of the A operand: a tensor copy of 64-column tiles and ldmatrix.
//
// Sources: the register layouts of mma.m16n8k16, ldmatrix, wgmma and the 128-byte swizzle are from the PTX ISA. Dealing
// out stages instead of tiles is the idea of Stream-K (Osama et al., 2023); the order of work that avoids waiting, and
// the parts of unequal length, are ours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_ring.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/tile_fragments.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>
#include <cuda/ptx/mma.cuh>
#include <cuda/ptx/registers.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Named barriers of a block.
enum SmallBatchBarrier : std::uint32_t { kAllMeet = 1, kConsumersMeet, kSumsWritten, kSumsThere };

/// What the parts of a block share.
template <class Config>
struct SmallBatchBlock {
  using Traits = SmallBatchTraits<Config>;

  const SmallBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& raw_map;
  const SmallBatchMap<Config> map;
  const SmallBatchSchedule& schedule;  ///< in shared memory: registers are few
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;

  [[nodiscard]] __device__ std::uint32_t full(std::uint32_t slot) const { return base + map.full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t empty(std::uint32_t slot) const { return base + map.empty + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_full(std::uint32_t slot) const { return base + map.x_full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_empty(std::uint32_t slot) const { return base + map.x_empty + 8 * slot; }

  /// All of the block's threads, once. Not __syncthreads(), which all must call from one place.
  __device__ void meet() const {
    __syncwarp();
    ptx::named_barrier_sync(kAllMeet, Traits::kThreads);
  }

  /// By a warp, a slot a lane: this comes before the first request.
  __device__ void init_barriers() const {
    if (lane < params.stages) {
      ptx::barrier_init(full(lane), Traits::kFullArrivals);
      ptx::barrier_init(empty(lane), Traits::kConsumers);
    }
    if constexpr (Traits::kXApart) {
      if (lane < Traits::kXSlots) {
        ptx::barrier_init(x_full(lane), 1);
        ptx::barrier_init(x_empty(lane), Traits::kConsumers);
      }
    }
    ptx::fence_barrier_init();
    __syncwarp();
  }

  __device__ void copy_x(std::uint32_t step, std::uint32_t slot, std::uint32_t barrier) const {
    ptx::tensor_copy(base + map.x + slot * Traits::kXBytes, &x_map, 0, step * Traits::kColTiles, barrier);
  }

  /// X by ordinary loads, where a tensor copy cannot address it. By the whole warp.
  __device__ void store_x(std::uint32_t step, std::uint32_t slot) const {
    const std::uint32_t first = step * Traits::kColTiles;
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = lane; i < Traits::kColTiles * format::kTileCols * Traits::kTokens; i += device::kLanes) {
      const std::uint32_t k = i % format::kTileCols, token = i / format::kTileCols % Traits::kTokens;
      const std::uint32_t tile = i / (format::kTileCols * Traits::kTokens);
      const std::uint32_t col = (first + tile) * format::kTileCols + k;
      const bool inside = token < params.tokens && col < params.cols;
      const std::uint16_t value = inside ? params.x[token * params.x_stride + col] : std::uint16_t{0};
      const std::uint32_t at =
          slot * Traits::kXBytes + tile * Traits::kXTileBytes + token * 128 + ((k / 8 ^ (token & 7)) * 16) + k % 8 * 2;
      *reinterpret_cast<std::uint16_t*>(shared + map.x + at) = value;
    }
    if constexpr (Config::kWarpgroup) ptx::fence_async_proxy();
    __syncwarp();
  }
};

/// Requests tiles, and X where it lies in the same slots. One warp, of which one lane does nearly everything.
template <class Config>
struct SmallBatchTileProducer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map;

  /// Stages that are requested before the block's threads have met.
  static constexpr std::uint32_t kFirstStages = 2;

  /// Tiles along K in a stage: fewer in an item's last one.
  [[nodiscard]] __device__ std::uint32_t columns(std::uint32_t step) const {
    return min(Traits::kColTiles, params.tiles_per_strip - step * Traits::kColTiles);
  }
  /// Strips of an item: fewer in the last one.
  [[nodiscard]] __device__ std::uint32_t strips(std::uint32_t item) const {
    return min(Config::kStrips, params.strips - item * Config::kStrips);
  }

  /// The producer's arrival: the slot is full when these bytes have come.
  __device__ void expect(std::uint32_t item, std::uint32_t step, std::uint32_t slot) const {
    std::uint32_t bytes = !Traits::kXApart && params.x_by_tensor_copy ? Traits::kXBytes : 0;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) bytes += Traits::kWeightBytes;
    } else {
      bytes += strips(item) * columns(step) * format::kTileBytes;
    }
    ptx::barrier_arrive_expect(this->full(slot), bytes);
  }

  __device__ void copy_weights(std::uint32_t item, std::uint32_t step, std::uint32_t slot) const {
    const std::uint32_t to = base + map.weights + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) {
        ptx::tensor_copy(to, &this->raw_map, item * Traits::kItemRows, step * Traits::kColTiles, this->full(slot));
      }
    } else {
      const std::uint32_t count = strips(item), bytes = columns(step) * format::kTileBytes;
      const std::byte* from =
          params.tiles + (std::uint64_t{item * Config::kStrips} * params.tiles_per_strip + step * Traits::kColTiles) *
                             format::kTileBytes;
      const std::uint64_t policy = ptx::evict_first_policy();
      UNWEIGHT_UNROLL
      for (std::uint32_t strip = 0; strip < Config::kStrips; ++strip) {
        if (strip >= count) break;
        ptx::bulk_copy(to + strip * Traits::kColTiles * format::kTileBytes, from, bytes, this->full(slot), policy);
        from += std::uint64_t{params.tiles_per_strip} * format::kTileBytes;
      }
    }
  }

  __device__ void run() const {
    const bool x_here = !Traits::kXApart, x_stored = x_here && !params.x_by_tensor_copy;
    // Tiles do not wait for the kernel in front of a dependent launch. Where X need not either it goes first, since
    // copies run in order and X must not wait behind many tiles.
    std::uint32_t tiles_requested = 0, x_requested = 0;  // stages of the first segment
    this->init_barriers();
    if (lane == 0) {
      if (x_here && !x_stored) ptx::prefetch_tensor_map(&this->x_map);
      const SmallBatchSegment first = SmallBatchSchedule::first_segment(params.deal, blockIdx.x);
      if (!x_stored) tiles_requested = min(kFirstStages, first.end - first.begin);
      if (x_here && !x_stored && !params.dependent) x_requested = tiles_requested;
      for (std::uint32_t slot = 0; slot < tiles_requested; ++slot) {
        expect(first.item, first.begin + slot, slot);
        if (slot < x_requested) this->copy_x(first.begin + slot, slot, this->full(slot));
        copy_weights(first.item, first.begin + slot, slot);
      }
    }
    this->meet();
    if (!x_stored && lane != 0) return;
    std::uint32_t n = 0;
    SmallBatchSegment now = this->schedule.segment(0);
    if (x_here && params.dependent && !x_stored) {
      for (; tiles_requested < min(params.stages, now.end - now.begin); ++tiles_requested) {
        expect(now.item, now.begin + tiles_requested, tiles_requested);
        copy_weights(now.item, now.begin + tiles_requested, tiles_requested);
      }
    }
    if (x_here) ptx::wait_for_previous_grids();
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    for (; now.exists(); now = this->schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        const std::uint32_t slot = place.slot;
        if (count >= params.stages) ptx::barrier_wait(this->empty(slot), place.parity);
        if (x_stored) this->store_x(step, slot);
        if (lane == 0) {
          if (count >= tiles_requested) expect(now.item, step, slot);
          if (x_here && !x_stored && count >= x_requested) this->copy_x(step, slot, this->full(slot));
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
    this->meet();
    ptx::wait_for_previous_grids();
    RingPlace place{0, 1};
    std::uint32_t count = 0, n = 0;
    for (SmallBatchSegment now = this->schedule.segment(0); now.exists(); now = this->schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        const std::uint32_t barrier = this->x_full(place.slot);
        if (count >= Traits::kXSlots) ptx::barrier_wait(this->x_empty(place.slot), place.parity);
        if (!by_tensor_copy) this->store_x(step, place.slot);
        if (this->lane == 0) {
          ptx::barrier_arrive_expect(barrier, by_tensor_copy ? Traits::kXBytes : 0);
          if (by_tensor_copy) this->copy_x(step, place.slot, barrier);
        }
        place.advance(Traits::kXSlots);
      }
    }
  }
};

/// Tells other blocks of this block's partial sums, and waits for theirs: one warp, since both take long.
///
/// A block has partial sums at most once for others, of its first segment, and needs others' at most once, for its
/// last.
template <class Config>
struct SmallBatchMessenger : SmallBatchBlock<Config> {
  static constexpr std::uint32_t kThreads = SmallBatchTraits<Config>::kConsumerThreads + device::kLanes;

  /// By the consumers: the block's partial sums are written.
  static __device__ void tell() { ptx::named_barrier_arrive(kSumsWritten, kThreads); }
  /// By the consumers: waits for those of the segment's helpers.
  static __device__ void await() { ptx::named_barrier_sync(kSumsThere, kThreads); }

  __device__ void run() const {
    this->meet();
    const SmallBatchSegment first = this->schedule.begun(), last = this->schedule.ended();
    std::uint32_t* const flags = this->params.partial_flags;
    if (first.exists()) {
      ptx::named_barrier_sync(kSumsWritten, kThreads);
      if (this->lane == 0) ptx::set_flag(flags + blockIdx.x);
    }
    if (last.exists()) {
      ptx::wait_for_previous_grids();
      for (std::uint32_t helper = last.first_helper + this->lane; helper < blockIdx.x; helper += device::kLanes) {
        ptx::wait_for_flag(flags + helper);
        flags[helper] = 0;  // for the next launch: nobody else reads it
      }
      __syncwarp();
      ptx::named_barrier_arrive(kSumsThere, kThreads);
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
    const SmallBatchSchedule& schedule;
    std::uint32_t n = 0;
    SmallBatchSegment segment = schedule.segment(0);
    std::uint32_t step = segment.begin;

    __device__ void advance() {
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

  __device__ void look_ahead(Cursor& cursor, Work& work) const {
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
    cursor.advance();
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
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(this->full(slot));  // releases what the warp has stored
  }

  __device__ void run() const {
    Cursor cursor{schedule};
    Work ahead[kAhead]{};
    UNWEIGHT_UNROLL
    for (Work& work : ahead) look_ahead(cursor, work);
    this->meet();
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
        look_ahead(cursor, work);
        ++count;
        place.advance(params.stages);
      }
    }
    ptx::wait_for_async_copies();
  }
};

/// Decodes one tile of every stage and multiplies it with X. One of 16 warps.
template <class Config>
struct SmallBatchConsumer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map, Block::shared, Block::schedule;
  using Stage = SmallBatchStage<Config>;
  using Fragments = device::TileFragments;

  /// Where a warp's things lie in shared memory; for the compiler to keep, not to derive anew for each tile.
  struct Places {
    std::uint32_t strip;   ///< of an item
    std::uint32_t column;  ///< tile along K of a stage
    std::uint32_t tile;    ///< of slot 0
    std::uint32_t x;       ///< the lane's row for ldmatrix, or the tile for wgmma; of slot 0
    std::uint32_t own;     ///< the warp's own memory
    std::uint32_t list;    ///< of slot 0
  };
  Places places;

  __device__ void find_places() {
    const std::uint32_t warp = threadIdx.x / device::kLanes;
    places.strip = Config::kWarpgroup ? warp % Config::kStrips : warp / Traits::kColTiles;
    places.column = Config::kWarpgroup ? warp / Config::kStrips : warp % Traits::kColTiles;
    const std::uint32_t tile = Config::kRaw ? places.column * Config::kStrips + places.strip
                                            : places.strip * Traits::kColTiles + places.column;
    places.tile = map.weights + tile * Traits::kTileStride;
    places.x = base + map.x + places.column * Traits::kXTileBytes +
               (Config::kWarpgroup ? 0 : (lane & 7) * 128 + ((lane >> 3 ^ (lane & 7)) * 16));
    places.own = map.warps + warp * Traits::kWarpBytes;
    places.list = map.stages + tile * static_cast<std::uint32_t>(sizeof(device::ExceptionList));
    for (std::uint32_t* place : {&lane, &places.tile, &places.x, &places.own, &places.list}) ptx::keep(*place);
    if constexpr (Config::kTokenTiles < 8) {  // where there are registers for them
      ptx::keep(places.strip);
      ptx::keep(places.column);
    }
  }

  /// The palettes of the lane's two rows. In a segment's first stage.
  [[nodiscard]] __device__ device::LanePalettes look_up_palettes(std::uint32_t slot) const {
    device::LanePalettes palettes{};
    if constexpr (!Config::kRaw) {
      const auto* all = reinterpret_cast<const uint2*>(shared + map.palettes);
      const std::uint8_t* rows =
          reinterpret_cast<const Stage*>(shared + map.stages)[slot].row_palettes + places.strip * format::kTileRows;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        const uint2 palette = all[rows[device::group_row(lane, i)]];
        palettes.row[i] = {palette.x, palette.y};
      }
    }
    return palettes;
  }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  /// A tile of raw values that a tensor copy has brought.
  __device__ Fragments load_raw(std::uint32_t tile) const {
    Fragments fragments;
    const std::uint32_t row = lane % 16;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) {
      ptx::load_matrices(fragments.a[s], tile + row * 128 + ((2 * s + lane / 16) ^ (row & 7)) * 16);
    }
    return fragments;
  }

  /// A tile of raw values where they lie, for rows that a tensor copy cannot address.
  __device__ Fragments fetch_raw(std::uint32_t strip, std::uint32_t column_tile) const {
    Fragments fragments;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 16; ++i) {
      const std::uint32_t row = strip * format::kTileRows + lane / 4 + 8 * (i & 1);
      const std::uint32_t col = column_tile * format::kTileCols + 16 * (i / 4) + 8 * (i / 2 & 1) + 2 * (lane & 3);
      std::uint32_t pair = 0;
      if (row < params.rows) {
        const std::uint16_t* at = params.raw_values + std::uint64_t{row} * params.cols + col;
        if (col < params.cols) pair = at[0];
        if (col + 1 < params.cols) pair |= std::uint32_t{at[1]} << 16;
      }
      fragments.a[i / 4][i % 4] = pair;
    }
    return fragments;
  }

  /// The tile of a slot, from whatever form it has, as join() takes it.
  __device__ auto load(std::uint32_t slot, const device::LanePalettes& palettes, std::uint32_t item,
                       std::uint32_t step) const {
    const std::uint32_t tile = places.tile + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) return load_raw(base + tile);
      return fetch_raw(item * Config::kStrips + places.strip, step * Traits::kColTiles + places.column);
    } else {
      auto* exponents = reinterpret_cast<std::uint8_t*>(shared + places.own);
      const auto list = *reinterpret_cast<const device::ExceptionList*>(shared + places.list + slot * sizeof(Stage));
      const device::FragmentDecoder decoder{shared, params.exceptions, exponents, lane, params.exception_base};
      return decoder.decode(shared + tile, palettes, list);
    }
  }

  /// A tile of zeros.
  template <class Tile>
  static __device__ void clear(Tile& tile) {
    static_assert(sizeof tile % sizeof(std::uint32_t) == 0);
    auto* words = reinterpret_cast<std::uint32_t*>(&tile);
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < sizeof tile / sizeof *words; ++i) {
      words[i] = 0;
      ptx::keep(words[i]);  // here, and not for every tile ahead of the condition
    }
  }

  static __device__ const Fragments& join(const Fragments& fragments) { return fragments; }
  static __device__ Fragments join(const device::TileParts& parts) { return parts.join(); }

  /// Begins a warpgroup's product.
  __device__ void begin_product(const Fragments& fragments, std::uint32_t slot,
                                float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t b = ptx::wgmma_operand(places.x + slot * Traits::kXBytes);
    ptx::wgmma_fence(sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand_at(b, 16 * s));
    ptx::wgmma_commit();
  }

  __device__ void hold(const Fragments& fragments) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma_hold(fragments.a[s], params.stages);
  }

  /// Gives a slot back to those who fill it.
  __device__ void release(std::uint32_t empty_barrier) const {
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty_barrier);
  }

  /// A warp's own product.
  __device__ void multiply(const Fragments& fragments, std::uint32_t slot,
                           float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t row = places.x + slot * Traits::kXBytes;
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (std::uint32_t half = 0; half < 2; ++half) {
        std::uint32_t b[4];
        ptx::load_matrices(b, (row ^ 64 * half) + t * 1024);
        const auto& a = fragments.a;
        const std::uint32_t s = 2 * half;
        ptx::mma_16x8x16(sums[t], a[s][0], a[s][1], a[s][2], a[s][3], b[0], b[1]);
        ptx::mma_16x8x16(sums[t], a[s + 1][0], a[s + 1][1], a[s + 1][2], a[s + 1][3], b[2], b[3]);
      }
    }
  }

  // ---- sums ---------------------------------------------------------------------------------------------------------

  /// How many neighbouring sums a thread takes at a time, so that all threads have some.
  static constexpr std::uint32_t kWidth = Traits::kPartSums >= 4 * Traits::kConsumerThreads   ? 4
                                          : Traits::kPartSums >= 2 * Traits::kConsumerThreads ? 2
                                                                                              : 1;
  /// How many times in a part.
  static constexpr std::uint32_t kTurns = format::ceil_div(Traits::kPartSums, kWidth* Traits::kConsumerThreads);

  struct alignas(4 * kWidth) Sums {
    float value[kWidth];

    __device__ void add(const Sums& other) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kWidth; ++i) value[i] += other.value[i];
    }
  };

  /// A thread's first sum of a part in a turn; kPartSums or more: none.
  static __device__ std::uint32_t first_sum(std::uint32_t thread, std::uint32_t turn) {
    return kWidth * (thread + turn * Traits::kConsumerThreads);
  }

  /// Adds the sums of the strip's warps in their order. Stores what lies inside Y; or, of an item that another block
  /// finishes, partial sums.
  __device__ void store(const SmallBatchSegment& segment, float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wait_for_previous_grids();  // nothing has been written so far
    if (segment.first_helper < blockIdx.x) SmallBatchMessenger<Config>::await();
    const bool finished = segment.end == params.deal.steps;
    std::uint32_t thread = threadIdx.x;
    ptx::keep(thread);  // from here on, so that no address that depends on it is kept in registers during the items
    auto* own = reinterpret_cast<float4*>(shared + places.own);
    Sums before[2][kTurns];  // of two parts, so that they are waited for at once
    UNWEIGHT_UNROLL
    for (std::uint32_t part = 0; part < Traits::kParts; ++part) {
      if (part % 2 == 0) {
        load_partials(segment, part, thread, before[0]);
        if (part + 1 < Traits::kParts) load_partials(segment, part + 1, thread, before[1]);
      }
      UNWEIGHT_UNROLL
      for (std::uint32_t t = 0; t < Traits::kPartTiles; ++t) {
        const auto& s = sums[part * Traits::kPartTiles + t];
        own[t * device::kLanes + lane] = make_float4(s[0], s[1], s[2], s[3]);
      }
      ptx::named_barrier_sync(kConsumersMeet, Traits::kConsumerThreads);
      UNWEIGHT_UNROLL
      for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
        const std::uint32_t first = first_sum(thread, turn);
        if (first >= Traits::kPartSums) continue;
        Sums sum = sum_of_warps(first);
        if (finished) {
          sum.add(before[part % 2][turn]);
          store_y(segment.item, part, first, sum);
        } else {
          float* partial = params.partial_sums + std::uint64_t{blockIdx.x} * Traits::kItemSums;
          *reinterpret_cast<Sums*>(partial + part * Traits::kPartSums + first) = sum;
        }
      }
      ptx::named_barrier_sync(kConsumersMeet, Traits::kConsumerThreads);  // before the memory is written again
    }
    if (!finished) SmallBatchMessenger<Config>::tell();
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (float& sum : sums[t]) sum = 0;
    }
  }

  /// The thread's sums of a part, as the blocks before this one have left them.
  __device__ void load_partials(const SmallBatchSegment& segment, std::uint32_t part, std::uint32_t thread,
                                Sums (&before)[kTurns]) const {
    UNWEIGHT_UNROLL
    for (Sums& sums : before) sums = {};
    for (std::uint32_t helper = segment.first_helper; helper < blockIdx.x; ++helper) {
      const float* partial = params.partial_sums + std::uint64_t{helper} * Traits::kItemSums + part * Traits::kPartSums;
      UNWEIGHT_UNROLL
      for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
        const std::uint32_t first = first_sum(thread, turn);
        if (first >= Traits::kPartSums) continue;
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < kWidth; ++i) {
          before[turn].value[i] += ptx::load_from_l2(partial + first + i);
        }
      }
    }
  }

  [[nodiscard]] __device__ Sums sum_of_warps(std::uint32_t first) const {
    const std::uint32_t strip = first / Traits::kStripPartSums, in_strip = first % Traits::kStripPartSums;
    Sums sum;
    UNWEIGHT_UNROLL
    for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
      const std::uint32_t warp = Config::kWarpgroup ? c * Config::kStrips + strip : strip * Traits::kColTiles + c;
      const auto* of_warp = reinterpret_cast<const float*>(shared + map.warps + warp * Traits::kWarpBytes);
      const Sums more = *reinterpret_cast<const Sums*>(of_warp + in_strip);
      if (c == 0) {
        sum = more;
      } else {
        sum.add(more);
      }
    }
    return sum;
  }

  /// In the order of a strip's sums four are one lane's of a token tile: two rows 8 apart x two tokens.
  __device__ void store_y(std::uint32_t item, std::uint32_t part, std::uint32_t first, const Sums& sums) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t k = 0; k < kWidth; ++k) {
      const std::uint32_t strip = first / Traits::kStripPartSums, in_strip = first % Traits::kStripPartSums;
      const std::uint32_t i = (first + k) % 4, l = in_strip / 4 % device::kLanes, t = in_strip / (4 * device::kLanes);
      const std::uint32_t row = item * Traits::kItemRows + strip * format::kTileRows + l / 4 + 8 * (i / 2);
      const std::uint32_t token = (part * Traits::kPartTiles + t) * 8 + 2 * (l & 3) + i % 2;
      if (row >= params.rows || token >= params.tokens) continue;
      float sum = sums.value[k];
      if (params.bias != nullptr) sum += device::float_of_bf16(params.bias[row]);
      params.y[token * params.y_stride + row] = device::round_to_bf16(sum);
    }
  }

  // ---- all of it ----------------------------------------------------------------------------------------------------

  __device__ void run() {
    if constexpr (!Config::kRaw) {
      for (std::uint32_t i = threadIdx.x; i < params.palette_count; i += Traits::kConsumerThreads) {
        reinterpret_cast<uint2*>(shared + map.palettes)[i] = params.palettes[i];
      }
    }
    find_places();
    this->meet();

    float sums[Config::kTokenTiles][4] = {};
    [[maybe_unused]] Fragments in_product{};
    device::LanePalettes palettes{};
    RingPlace place;
    [[maybe_unused]] RingPlace x_place;
    SmallBatchSegment now = schedule.segment(0);
    for (std::uint32_t n = 1; now.exists(); ++n) {
      // In steps before `end` the warp has a tile; the last strips of W and the last columns may be missing.
      const std::uint32_t strip = now.item * Config::kStrips + places.strip;
      const std::uint32_t end =
          strip < params.strips ? (params.tiles_per_strip - places.column + Traits::kColTiles - 1) / Traits::kColTiles
                                : 0;
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t slot = place.slot;
        const bool tile_exists = step < end;
        ptx::barrier_wait(this->full(slot), place.parity);
        if (step == now.begin) palettes = look_up_palettes(slot);
        decltype(load(slot, palettes, now.item, step)) tile;
        if (tile_exists) {
          tile = load(slot, palettes, now.item, step);
        } else if constexpr (Config::kWarpgroup) {
          clear(tile);  // a warpgroup multiplies as one
        }
        place.advance(params.stages);
        if constexpr (Config::kWarpgroup) {
          release(this->empty(slot));
          // The product of the step before has run while this tile was decoded.
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          ptx::wgmma_wait(sums);  // also where none has begun: under a condition ptxas would make all of them wait
          hold(in_product);
          if (step != now.begin) release(this->x_empty(x_place.previous(Traits::kXSlots)));
          in_product = join(tile);
          begin_product(in_product, x_place.slot, sums);
          x_place.advance(Traits::kXSlots);
          // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
          if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
        } else if constexpr (Traits::kXApart) {
          release(this->empty(slot));
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          if (tile_exists) multiply(join(tile), x_place.slot, sums);
          release(this->x_empty(x_place.slot));
          x_place.advance(Traits::kXSlots);
        } else {
          if (tile_exists) multiply(join(tile), slot, sums);
          release(this->empty(slot));
        }
      }
      if constexpr (Config::kWarpgroup) {
        ptx::wgmma_wait(sums);
        hold(in_product);
        release(this->x_empty(x_place.previous(Traits::kXSlots)));
      }
      store(now, sums);
      now = schedule.segment(n);
    }
  }
};

template <class Config>
__global__ void __launch_bounds__(SmallBatchTraits<Config>::kThreads, 1)
    small_batch_kernel(const __grid_constant__ SmallBatchParams params, const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ CUtensorMap raw_map) {
  using Traits = SmallBatchTraits<Config>;
  std::byte* const shared = ptx::dynamic_shared_memory();
  const SmallBatchMap<Config> map(params.stages);
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  auto& schedule = *reinterpret_cast<SmallBatchSchedule*>(shared + map.schedule);
  const SmallBatchBlock<Config> block{params, x_map, raw_map, map, schedule, shared, ptx::shared_address(shared), lane};
  ptx::launch_dependents();
  // Every part begins with what it can do alone, and then meets the others.
  if (warp < Traits::kConsumers) {
    if constexpr (Config::kWarpgroup) ptx::take_registers<Traits::kConsumerRegisters>();
    SmallBatchConsumer<Config>{block, {}}.run();
    return;
  }
  if constexpr (Config::kWarpgroup) ptx::give_registers<Traits::kProducerRegisters>();
  if (warp == Traits::kTileProducer) {
    SmallBatchTileProducer<Config>{block}.run();
  } else if (warp == Traits::kExceptionProducer) {
    if (lane == 0) schedule = SmallBatchSchedule(params.deal, blockIdx.x);
    __syncwarp();
    if constexpr (Config::kRaw) {
      block.meet();
    } else {
      SmallBatchExceptionProducer<Config>{block}.run();
    }
  } else if (warp == Traits::kMessenger) {
    SmallBatchMessenger<Config>{block}.run();
  } else if constexpr (Traits::kXApart) {
    SmallBatchXProducer<Config>{block}.run();
  }
}

}  // namespace unweight::sm90
