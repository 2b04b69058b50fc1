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
//   work   about 7 instructions a weight for up to 8 tokens; at the floor a multiprocessor issues 13.8.
//
// An *item* is kStrips strips of 16 output features over all of K; one block computes it alone, so no sums cross
// blocks. Block b takes items b, b + blocks, ...: the chip reads one region of the blob at a time. A *stage* is what a
// block reads at once, 16 tiles: kStrips strips x kColTiles = 16 / kStrips tiles along K.
//
//   producer, one thread                           16 consumer warps, one tile of the stage each
//   waits for a free slot of the ring              waits for the slot; asks for the next tile's exceptions
//   X: one tensor copy             -- slot -->     codes -> exponents by PRMT -> own 1 KiB of shared memory
//   tiles: one bulk copy a strip                   patches exceptions there, one byte each; reads exponents back
//                                                  joins sign+mantissa: A operand in registers
//                                                  B operand by ldmatrix, mma.sync, frees the slot; or four
//                                                  warps and wgmma, which reads X from the slot itself
//   at an item's end                               partial sums to shared memory, added in the order of K, stored
//
// The producer's instructions are few because it is one warp's worth of latency: with the exceptions in its hands it
// was the slowest part of the kernel. A consumer knows where its tiles' lists lie for 32 steps ahead, and has the units
// of the next tile on their way while it decodes this one.
//
// Sums: a warp adds its tiles in the order of K; then the kColTiles warps of a strip are added in order. So the bits of
// Y depend on kStrips and kWarpgroup and nothing else: not on tokens, stages, blocks, or scheduling.
//
// Raw weights are the same kernel with another source of the A operand: a tensor copy of 16 x 64 values and ldmatrix.
//
// Sources: the register layouts of mma.m16n8k16, ldmatrix and the 128-byte swizzle are from the PTX ISA.
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

/// Fills the ring. One warp, of which one lane does nearly everything.
template <class Config>
struct SmallBatchProducer {
  using Traits = SmallBatchTraits<Config>;

  const SmallBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& raw_map;
  const SmallBatchMap<Config>& map;
  const SmallBatchSchedule& schedule;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;

  [[nodiscard]] __device__ std::uint32_t full(std::uint32_t slot) const { return base + map.full + 8 * slot; }

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
    std::uint32_t bytes = params.x_by_tensor_copy ? Traits::kXBytes : 0;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) bytes += Traits::kWeightBytes;
    } else {
      bytes += strips(item) * columns(step) * format::kTileBytes;
    }
    ptx::barrier_arrive_expect(full(slot), bytes);
  }

  __device__ void copy_x(std::uint32_t step, std::uint32_t slot) const {
    if (!params.x_by_tensor_copy) return;
    ptx::tensor_copy(base + map.x + slot * Traits::kXBytes, &x_map, 0, step * Traits::kColTiles, full(slot));
  }

  __device__ void copy_weights(std::uint32_t item, std::uint32_t step, std::uint32_t slot) const {
    const std::uint32_t to = base + map.weights + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      if (params.raw_by_tensor_copy) {
        ptx::tensor_copy(to, &raw_map, item * Traits::kItemRows, step * Traits::kColTiles, full(slot));
      }
    } else {
      const std::uint32_t count = strips(item), bytes = columns(step) * format::kTileBytes;
      const std::byte* from = params.tiles + (std::uint64_t{item * Config::kStrips} * params.tiles_per_strip +
                                              step * Traits::kColTiles) *
                                                 format::kTileBytes;
      const std::uint64_t policy = ptx::evict_first_policy();
      UNWEIGHT_UNROLL
      for (std::uint32_t strip = 0; strip < Config::kStrips; ++strip) {
        if (strip >= count) break;
        ptx::bulk_copy(to + strip * Traits::kColTiles * format::kTileBytes, from, bytes, full(slot), policy);
        from += std::uint64_t{params.tiles_per_strip} * format::kTileBytes;
      }
    }
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

  __device__ void run() const {
    if (params.x_by_tensor_copy && lane != 0) return;
    // Of a dependent launch, before the kernel in front of it has ended: weights. Otherwise X goes first, since copies
    // run in order and X must not wait behind many tiles.
    std::uint32_t n = 0;
    SmallBatchSegment now = schedule.segment(0);
    const std::uint32_t early =
        params.dependent && params.x_by_tensor_copy ? min(params.stages, now.end - now.begin) : 0;
    for (std::uint32_t slot = 0; slot < early; ++slot) {
      expect(now.item, now.begin + slot, slot);
      copy_weights(now.item, now.begin + slot, slot);
    }
    ptx::wait_for_previous_grids();
    for (std::uint32_t slot = 0; slot < early; ++slot) copy_x(now.begin + slot, slot);
    std::uint32_t slot = 0, parity = 1, count = 0;
    for (; now.exists(); now = schedule.segment(++n)) {
      for (std::uint32_t step = now.begin; step < now.end; ++step, ++count) {
        if (count >= params.stages) ptx::barrier_wait(base + map.empty + 8 * slot, parity);
        if (!params.x_by_tensor_copy) store_x(step, slot);
        if (lane == 0 && count >= early) {
          expect(now.item, step, slot);
          copy_x(step, slot);
          copy_weights(now.item, step, slot);
        }
        if (++slot == params.stages) {
          slot = 0;
          parity ^= 1;
        }
      }
    }
  }
};

/// Tells other blocks of this block's partial sums, and waits for theirs: one warp, since both take long.
///
/// A block has partial sums at most once for others, of its first segment, and needs others' at most once, for its last.
template <class Config>
struct SmallBatchMessenger {
  using Traits = SmallBatchTraits<Config>;
  static constexpr std::uint32_t kThreads = Traits::kConsumerThreads + device::kLanes;

  const SmallBatchParams& params;
  const SmallBatchSchedule& schedule;
  std::uint32_t lane;

  /// By the consumers: the block's partial sums are written.
  static __device__ void tell() { ptx::named_barrier_arrive(2, kThreads); }
  /// By the consumers: waits for those of the segment's helpers.
  static __device__ void await() { ptx::named_barrier_sync(3, kThreads); }

  __device__ void run() const {
    const SmallBatchSegment first = schedule.begun(), last = schedule.ended();
    if (first.exists()) {
      ptx::named_barrier_sync(2, kThreads);
      if (lane == 0) ptx::set_flag(params.partial_flags + blockIdx.x);
    }
    if (last.exists()) {
      ptx::wait_for_previous_grids();
      for (std::uint32_t helper = last.first_helper + lane; helper < blockIdx.x; helper += device::kLanes) {
        ptx::wait_for_flag(params.partial_flags + helper);
        params.partial_flags[helper] = 0;  // for the next launch: nobody else reads it
      }
      __syncwarp();
      ptx::named_barrier_arrive(3, kThreads);
    }
  }
};

/// Fills the slots' exceptions: one warp. Their places are tables in global memory, loaded some stages ahead.
template <class Config>
struct SmallBatchExceptionProducer {
  using Traits = SmallBatchTraits<Config>;
  using Stage = SmallBatchStage<Config>;
  static constexpr std::uint32_t kStartsPerStrip = Traits::kColTiles + 1;
  static constexpr std::uint32_t kAhead = 4;  ///< stages

  const SmallBatchParams& params;
  const SmallBatchMap<Config>& map;
  const SmallBatchSchedule& schedule;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;

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
      const std::uint32_t at = strip * (Traits::kExceptionBytes / 2) + start - aligned;
      stage.lists[strip * Traits::kColTiles + column] = {start, static_cast<std::uint16_t>(next - start),
                                                         fits ? static_cast<std::uint16_t>(at) : Stage::kNotInSlot};
      // kColTiles lanes of a strip copy its vectors.
      const std::uint32_t vectors = fits ? (end - aligned + kVectorUnits - 1) / kVectorUnits : 0;
      const std::uint32_t to = base + map.exceptions + (slot * Config::kStrips + strip) * Traits::kExceptionBytes;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t v = column; v < vectors; v += Traits::kColTiles) {
        ptx::copy_async16(to + 16 * v, params.exceptions + aligned + std::uint64_t{kVectorUnits} * v);
      }
    }
    if (work.begins_segment && lane < min(Config::kStrips, params.strips - first_strip)) {
      ptx::copy_async16(ptx::shared_address(stage.row_palettes) + lane * format::kTileRows,
                        params.row_palettes + std::uint64_t{first_strip + lane} * format::kTileRows);
    }
    const std::uint32_t full = base + map.full + 8 * slot;
    ptx::barrier_arrive_after_async(full);
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(full);  // releases what the warp has stored
  }

  __device__ void run() const {
    Cursor cursor{schedule};
    Work ahead[kAhead]{};
    UNWEIGHT_UNROLL
    for (Work& work : ahead) look_ahead(cursor, work);
    std::uint32_t slot = 0, parity = 1, count = 0;
    for (;;) {
      UNWEIGHT_UNROLL
      for (Work& work : ahead) {
        if (!work.exists) {
          ptx::wait_for_async_copies();
          return;
        }
        if (count >= params.stages) ptx::barrier_wait(base + map.empty + 8 * slot, parity);
        fill(work, slot);
        look_ahead(cursor, work);
        ++count;
        if (++slot == params.stages) {
          slot = 0;
          parity ^= 1;
        }
      }
    }
  }
};

/// Decodes one tile of every stage and multiplies it with X. One of 16 warps.
template <class Config>
struct SmallBatchConsumer {
  using Traits = SmallBatchTraits<Config>;
  using Stage = SmallBatchStage<Config>;
  using Fragments = device::TileFragments;

  const SmallBatchParams& params;
  const SmallBatchMap<Config>& map;
  const SmallBatchSchedule& schedule;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t warp;
  std::uint32_t lane;

  /// Where a warp's things lie in shared memory; for the compiler to keep, not to derive anew for each tile.
  struct Places {
    std::uint32_t strip;      ///< of an item
    std::uint32_t column;     ///< tile along K of a stage
    std::uint32_t tile;       ///< of slot 0
    std::uint32_t x;          ///< the lane's row for ldmatrix, or the tile for wgmma; of slot 0
    std::uint32_t own;        ///< the warp's own memory
    std::uint32_t list;       ///< of slot 0
    std::uint32_t full;       ///< of slot 0
  };
  Places places;

  __device__ void find_places() {
    places.strip = Config::kWarpgroup ? warp % Config::kStrips : warp / Traits::kColTiles;
    places.column = Config::kWarpgroup ? warp / Config::kStrips : warp % Traits::kColTiles;
    const std::uint32_t tile = Config::kRaw ? places.column * Config::kStrips + places.strip
                                            : places.strip * Traits::kColTiles + places.column;
    places.tile = map.weights + tile * Traits::kTileStride;
    places.x = base + map.x + places.column * Traits::kXTileBytes +
               (Config::kWarpgroup ? 0 : (lane & 7) * 128 + ((lane >> 3 ^ (lane & 7)) * 16));
    places.own = map.warps + warp * Traits::kWarpBytes;
    places.list = map.stages + tile * static_cast<std::uint32_t>(sizeof(typename Stage::List));
    places.full = base + map.full;
    for (std::uint32_t* place :
         {&lane, &places.tile, &places.x, &places.own, &places.list, &places.full}) {
      ptx::keep(*place);
    }
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

  [[nodiscard]] __device__ device::ExceptionList list_of_tile(std::uint32_t slot) const {
    const auto list = *reinterpret_cast<const typename Stage::List*>(shared + places.list + slot * sizeof(Stage));
    const std::uint32_t at =
        map.exceptions + slot * Config::kStrips * Traits::kExceptionBytes + 2 * std::uint32_t{list.in_slot};
    const bool in_slot = list.in_slot != Stage::kNotInSlot;
    const auto* units = reinterpret_cast<const std::uint16_t*>(shared + at);
    std::uint32_t first = 0;
    if (in_slot) {
      if (lane < list.count) first = units[lane];
    } else {
      units = params.exceptions + list.begin;
      if (lane < list.count) first = __ldg(units + lane);
    }
    return {units, list.count, first};
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
  __device__ auto load(std::uint32_t slot, const device::LanePalettes& palettes, std::uint32_t strip,
                       std::uint32_t column_tile) const {
    const std::uint32_t tile = places.tile + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      return params.raw_by_tensor_copy ? load_raw(base + tile) : fetch_raw(strip, column_tile);
    } else {
      auto* exponents = reinterpret_cast<std::uint8_t*>(shared + places.own);
      const device::FragmentDecoder decoder{exponents, lane, params.exception_base};
      return decoder.decode(shared + tile, palettes, list_of_tile(slot));
    }
  }

  static __device__ const Fragments& join(const Fragments& fragments) { return fragments; }
  static __device__ Fragments join(const device::TileParts& parts) { return parts.join(); }

  /// Begins a warpgroup's product; await_product() ends it.
  __device__ void begin_product(const Fragments& fragments, std::uint32_t slot,
                                float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint64_t b = ptx::wgmma_operand(places.x + slot * Traits::kXBytes);
    ptx::wgmma_fence(sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand_at(b, 16 * s));
    ptx::wgmma_commit();
  }

  __device__ void await_product(const Fragments& fragments, float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wgmma_wait(sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma_hold(fragments.a[s], params.stages);
  }

  __device__ void release(std::uint32_t slot) const {
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(places.full + 8 * (params.stages + slot));
  }

  /// A warp's own product.
  __device__ void multiply(const Fragments& fragments, std::uint32_t slot, float (&sums)[Config::kTokenTiles][4]) const {
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

  static __device__ float4 add(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }

  /// Adds the sums of the strip's warps in their order. Stores what lies inside Y; or, of an item that another block
  /// finishes, partial sums.
  __device__ void store(const SmallBatchSegment& segment, float (&sums)[Config::kTokenTiles][4]) const {
    const bool finished = segment.end == params.deal.steps;
    if (segment.first_helper < blockIdx.x) SmallBatchMessenger<Config>::await();
    auto* own = reinterpret_cast<float4*>(shared + places.own);
    float4 before[2][kThreadVectors];  // of two parts, so that they are waited for at once
    UNWEIGHT_UNROLL
    for (std::uint32_t part = 0; part < Traits::kParts; ++part) {
      if (part % 2 == 0) {
        load_partials(segment, part, before[0]);
        if (part + 1 < Traits::kParts) load_partials(segment, part + 1, before[1]);
      }
      UNWEIGHT_UNROLL
      for (std::uint32_t t = 0; t < Traits::kPartTiles; ++t) {
        const auto& s = sums[part * Traits::kPartTiles + t];
        own[t * device::kLanes + lane] = make_float4(s[0], s[1], s[2], s[3]);
      }
      ptx::named_barrier_sync(1, Traits::kConsumerThreads);
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kThreadVectors; ++i) {
        const std::uint32_t v = threadIdx.x + i * Traits::kConsumerThreads;
        if (v < Traits::kPartVectors) store_vector(segment, finished, part, v, before[part % 2][i]);
      }
      ptx::named_barrier_sync(1, Traits::kConsumerThreads);  // before the memory is written again
    }
    if (!finished) SmallBatchMessenger<Config>::tell();
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (float& sum : sums[t]) sum = 0;
    }
  }

  /// Of a part's vectors, how many a thread stores at most.
  static constexpr std::uint32_t kThreadVectors = format::ceil_div(Traits::kPartVectors, Traits::kConsumerThreads);

  /// The thread's vectors of a part's sums, as the blocks before this one have left them.
  __device__ void load_partials(const SmallBatchSegment& segment, std::uint32_t part,
                                float4 (&before)[kThreadVectors]) const {
    UNWEIGHT_UNROLL
    for (float4& vector : before) vector = make_float4(0, 0, 0, 0);
    for (std::uint32_t helper = segment.first_helper; helper < blockIdx.x; ++helper) {
      const float4* partial =
          params.partial_sums + std::uint64_t{helper} * Traits::kItemVectors + part * Traits::kPartVectors;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kThreadVectors; ++i) {
        const std::uint32_t v = threadIdx.x + i * Traits::kConsumerThreads;
        if (v < Traits::kPartVectors) before[i] = add(before[i], ptx::load_from_l2(partial + v));
      }
    }
  }

  /// Vector `v` of a part: four sums as one lane has them, two rows 8 apart x two tokens.
  __device__ void store_vector(const SmallBatchSegment& segment, bool finished, std::uint32_t part, std::uint32_t v,
                               const float4& before) const {
    const std::uint32_t strip = v / (Traits::kPartTiles * device::kLanes);
    const std::uint32_t in_strip = v % (Traits::kPartTiles * device::kLanes);
    float4 sum;
    UNWEIGHT_UNROLL
    for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
      const std::uint32_t w = Config::kWarpgroup ? c * Config::kStrips + strip : strip * Traits::kColTiles + c;
      const float4 more = reinterpret_cast<const float4*>(shared + map.warps + w * Traits::kWarpBytes)[in_strip];
      sum = c == 0 ? more : add(sum, more);
    }
    if (!finished) {
      params.partial_sums[std::uint64_t{blockIdx.x} * Traits::kItemVectors + part * Traits::kPartVectors + v] = sum;
      return;
    }
    sum = add(before, sum);
    const std::uint32_t t = in_strip / device::kLanes, l = in_strip % device::kLanes;
    const float values[4] = {sum.x, sum.y, sum.z, sum.w};
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint32_t row = segment.item * Traits::kItemRows + strip * format::kTileRows + l / 4 + 8 * (i / 2);
      const std::uint32_t token = (part * Traits::kPartTiles + t) * 8 + 2 * (l & 3) + i % 2;
      if (row >= params.rows || token >= params.tokens) continue;
      const float bias = params.bias == nullptr ? 0.0F : device::float_of_bf16(params.bias[row]);
      params.y[token * params.y_stride + row] =
          device::round_to_bf16(params.bias == nullptr ? values[i] : values[i] + bias);
    }
  }

  __device__ void run() const {
    SmallBatchSegment now = schedule.segment(0);
    if constexpr (!Config::kRaw) {
      for (std::uint32_t i = threadIdx.x; i < params.palette_count; i += Traits::kConsumerThreads) {
        reinterpret_cast<uint2*>(shared + map.palettes)[i] = params.palettes[i];
      }
    }
    ptx::named_barrier_sync(1, Traits::kConsumerThreads);
    ptx::wait_for_previous_grids();

    float sums[Config::kTokenTiles][4] = {};
    [[maybe_unused]] Fragments in_product{};
    device::LanePalettes palettes{};
    std::uint32_t slot = 0, parity = 0;
    for (std::uint32_t n = 1; now.exists(); ++n) {
      const std::uint32_t strip = now.item * Config::kStrips + places.strip;
      // A warpgroup multiplies as one: a strip beyond the last has zeros.
      const bool strip_exists = strip < params.strips;
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t column_tile = step * Traits::kColTiles + places.column;
        const bool tile_exists = strip_exists && column_tile < params.tiles_per_strip;
        ptx::barrier_wait(places.full + 8 * slot, parity);
        if (step == now.begin) palettes = look_up_palettes(slot);
        decltype(load(slot, palettes, strip, column_tile)) tile{};
        if (tile_exists) tile = load(slot, palettes, strip, column_tile);
        if constexpr (Config::kWarpgroup) {
          // The product of the step before has run while this tile was decoded.
          // The product of the step before has run while this tile was decoded.
          await_product(in_product, sums);
          if (step != now.begin) release(slot == 0 ? params.stages - 1 : slot - 1);
          in_product = join(tile);
          begin_product(in_product, slot, sums);
          // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
          if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
        } else {
          if (tile_exists) multiply(join(tile), slot, sums);
          release(slot);
        }
        if (++slot == params.stages) {
          slot = 0;
          parity ^= 1;
        }
      }
      if constexpr (Config::kWarpgroup) {
        await_product(in_product, sums);
        release(slot == 0 ? params.stages - 1 : slot - 1);
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
  const std::uint32_t base = ptx::shared_address(shared);
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  ptx::launch_dependents();
  auto& schedule = *reinterpret_cast<SmallBatchSchedule*>(shared + map.schedule);  // registers are few
  if (threadIdx.x == 0) schedule = SmallBatchSchedule(params.deal, blockIdx.x);
  if (threadIdx.x == Traits::kConsumerThreads) {
    if (params.x_by_tensor_copy) ptx::prefetch_tensor_map(&x_map);
    for (std::uint32_t slot = 0; slot < params.stages; ++slot) {
      ptx::barrier_init(base + map.full + 8 * slot, Traits::kFullArrivals);
      ptx::barrier_init(base + map.empty + 8 * slot, Traits::kConsumers);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (warp >= Traits::kConsumers) {
    if constexpr (Config::kWarpgroup) ptx::give_registers<Traits::kProducerRegisters>();
    if (warp == Traits::kTileProducer) {
      SmallBatchProducer<Config>{params, x_map, raw_map, map, schedule, shared, base, lane}.run();
    } else if constexpr (!Config::kRaw) {
      if (warp == Traits::kExceptionProducer) {
        SmallBatchExceptionProducer<Config>{params, map, schedule, shared, base, lane}.run();
      }
    }
    if (warp == Traits::kMessenger) SmallBatchMessenger<Config>{params, schedule, lane}.run();
  } else {
    if constexpr (Config::kWarpgroup) ptx::take_registers<Traits::kConsumerRegisters>();
    SmallBatchConsumer<Config> consumer{params, map, schedule, shared, base, warp, lane, {}};
    consumer.find_places();
    consumer.run();
  }
}

}  // namespace unweight::sm90
