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
// blocks. Blocks take items in order (or by ticket): the chip reads one region of the blob at a time. A *stage* is what
// a block reads at once, 16 tiles: kStrips strips x kColTiles = 16 / kStrips tiles along K.
//
//   producer warp                                      16 consumer warps, one tile of the stage each
//   waits for a free slot of the ring                  waits for the slot
//   X and tiles: bulk copies       ---- slot ---->     codes -> exponents by PRMT -> own 1 KiB of shared memory
//   exceptions: 16-byte copies                         patches exceptions there, one byte each; reads exponents back
//   where each tile's exceptions lie                   joins sign+mantissa: A operand in registers
//                                                      B operand by ldmatrix, mma.sync, frees the slot; or four
//                                                      warps and wgmma, which reads X from the slot itself
//   at an item's end                                   partial sums to shared memory, added in the order of K, stored
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
#include <cuda/ptx/mma.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// The sequence of (item, step) that a block goes through. One warp.
struct SmallBatchCursor {
  const SmallBatchParams& params;
  std::uint32_t lane;
  std::uint32_t item = blockIdx.x;
  std::uint32_t step = 0;
  std::uint32_t ticket = 0;  ///< lane 0's; asked for early, needed when the item ends
  bool asked = false;

  [[nodiscard]] __device__ bool done() const { return item >= params.items; }

  /// Asks for the next item. A block asks once for each of its items, and its last ask tells it that none is left: so
  /// `items` asks in all, after which the counter is back at 0 for the next launch.
  __device__ void ask() {
    if (params.next_ticket == nullptr || asked || done()) return;
    if (lane == 0) ticket = atomicInc(params.next_ticket, params.items - 1);
    asked = true;
  }

  __device__ void advance() {
    if (done() || ++step < params.steps) return;
    step = 0;
    ask();
    item = params.next_ticket == nullptr ? item + gridDim.x : gridDim.x + __shfl_sync(device::kAllLanes, ticket, 0);
    asked = false;
  }
};

/// Fills the ring. One warp.
template <class Config>
struct SmallBatchProducer {
  using Traits = SmallBatchTraits<Config>;
  using Stage = SmallBatchStage<Config>;
  static constexpr std::uint32_t kStartsPerStrip = Traits::kColTiles + 1;

  const SmallBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& raw_map;
  const SmallBatchMap<Config>& map;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;
  std::uint64_t policy;

  /// The lane's strip of an item and tile of that strip's part of a stage; kColTiles is the tile after the last.
  [[nodiscard]] __device__ std::uint32_t strip_in_item() const { return lane / kStartsPerStrip; }
  [[nodiscard]] __device__ std::uint32_t tile_in_stage() const { return lane % kStartsPerStrip; }

  struct Work {
    std::uint32_t item, step;
    std::uint32_t start;  ///< unit at which the exceptions of the lane's tile begin
  };

  __device__ Work look_ahead(SmallBatchCursor& cursor) const {
    Work work{cursor.done() ? Stage::kNoItem : cursor.item, cursor.step, 0};
    const std::uint32_t strip = work.item * Config::kStrips + strip_in_item();
    if (!Config::kRaw && work.item != Stage::kNoItem && strip_in_item() < Config::kStrips && strip < params.strips) {
      const std::uint32_t column = min(work.step * Traits::kColTiles + tile_in_stage(), params.tiles_per_strip);
      const std::uint32_t tile = params.first_tile + strip * params.tiles_per_strip + column;
      work.start = params.segment_starts[tile / format::kTilesPerSegment] + params.tile_starts[tile];
    }
    cursor.advance();
    return work;
  }

  /// Tiles along K in a stage: fewer in an item's last one.
  [[nodiscard]] __device__ std::uint32_t columns(std::uint32_t step) const {
    return min(Traits::kColTiles, params.tiles_per_strip - step * Traits::kColTiles);
  }

  __device__ void copy_x(const Work& work, std::uint32_t slot) const {
    const std::uint32_t to = base + map.x + slot * Traits::kXBytes, barrier = base + map.full + 8 * slot;
    const std::uint32_t tiles = columns(work.step), first = work.step * Traits::kColTiles;
    if (params.x_by_tensor_copy) {
      if (lane == 0) ptx::barrier_expect(barrier, tiles * Traits::kXTileBytes);
      __syncwarp();
      if (lane < tiles) {
        ptx::tensor_copy(to + lane * Traits::kXTileBytes, &x_map,
                         static_cast<std::int32_t>((first + lane) * format::kTileCols), 0, barrier);
      }
      return;
    }
    for (std::uint32_t i = lane; i < tiles * format::kTileCols * Traits::kTokens; i += device::kLanes) {
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
  }

  __device__ void copy_weights(const Work& work, std::uint32_t slot) const {
    const std::uint32_t to = base + map.weights + slot * Traits::kWeightBytes, barrier = base + map.full + 8 * slot;
    const std::uint32_t tiles = columns(work.step), first_strip = work.item * Config::kStrips;
    const std::uint32_t strips = min(Config::kStrips, params.strips - first_strip);
    if constexpr (Config::kRaw) {
      if (!params.raw_by_tensor_copy) return;
      if (lane == 0) ptx::barrier_expect(barrier, strips * tiles * Traits::kRawTileBytes);
      __syncwarp();
      const std::uint32_t strip = lane / Traits::kColTiles, column = lane % Traits::kColTiles;
      if (strip < strips && column < tiles) {
        ptx::tensor_copy(to + lane * Traits::kRawTileBytes, &raw_map,
                         static_cast<std::int32_t>((work.step * Traits::kColTiles + column) * format::kTileCols),
                         static_cast<std::int32_t>((first_strip + strip) * format::kTileRows), barrier);
      }
    } else {
      if (lane == 0) ptx::barrier_expect(barrier, strips * tiles * format::kTileBytes);
      __syncwarp();
      if (lane < strips) {
        const std::uint64_t tile =
            std::uint64_t{first_strip + lane} * params.tiles_per_strip + work.step * Traits::kColTiles;
        ptx::bulk_copy(to + lane * Traits::kColTiles * format::kTileBytes, params.tiles + tile * format::kTileBytes,
                       tiles * format::kTileBytes, barrier, policy);
      }
    }
  }

  /// Exceptions, row palettes and the slot's description; then the producer's arrivals.
  __device__ void finish(const Work& work, std::uint32_t slot) const {
    Stage& stage = *reinterpret_cast<Stage*>(shared + map.stages + slot * sizeof(Stage));
    const std::uint32_t barrier = base + map.full + 8 * slot;
    if constexpr (!Config::kRaw) {
      if (work.item != Stage::kNoItem) {
        const std::uint32_t strip = strip_in_item(), column = tile_in_stage();
        const std::uint32_t begin =
            __shfl_sync(device::kAllLanes, work.start, min(strip, Config::kStrips - 1) * kStartsPerStrip);
        const std::uint32_t end = __shfl_sync(device::kAllLanes, work.start,
                                              min(strip, Config::kStrips - 1) * kStartsPerStrip + Traits::kColTiles);
        const std::uint32_t units = __shfl_down_sync(device::kAllLanes, work.start, 1) - work.start;
        constexpr std::uint32_t kVectorUnits = 8;  // 16 bytes
        const std::uint32_t aligned = begin / kVectorUnits * kVectorUnits;
        const bool fits = 2 * (end - aligned) <= Traits::kExceptionBytes;
        if (strip < Config::kStrips && column < Traits::kColTiles) {
          stage.lists[strip * Traits::kColTiles + column] =
              fits ? make_uint2(strip * Traits::kExceptionBytes / 2 + work.start - aligned, units)
                   : make_uint2(work.start, units | Stage::kNotInSlot);
          // kColTiles lanes of a strip copy its vectors.
          const std::uint32_t vectors = fits ? (end - aligned + kVectorUnits - 1) / kVectorUnits : 0;
          const std::uint32_t to = base + map.exceptions + (slot * Config::kStrips + strip) * Traits::kExceptionBytes;
          for (std::uint32_t v = column; v < vectors; v += Traits::kColTiles) {
            ptx::copy_async16(to + 16 * v, params.exceptions + aligned + std::uint64_t{kVectorUnits} * v);
          }
        }
        const std::uint32_t first_strip = work.item * Config::kStrips;
        if (work.step == 0 && lane < min(Config::kStrips, params.strips - first_strip)) {
          ptx::copy_async16(ptx::shared_address(stage.row_palettes) + lane * format::kTileRows,
                            params.row_palettes + std::uint64_t{first_strip + lane} * format::kTileRows);
        }
      }
    }
    if (lane == 0) stage.item = work.item;
    ptx::barrier_arrive_after_async(barrier);
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(barrier);  // releases what the warp has stored
  }

  __device__ void run() const {
    SmallBatchCursor cursor{params, lane};
    // What may come before the block's threads have met, and, of a dependent launch, before the kernel in front of it
    // has ended: weights. Not all slots otherwise: copies run in order, and X must not wait behind many tiles.
    const std::uint32_t early = min(params.dependent ? params.stages : 2, params.steps);
    for (std::uint32_t slot = 0; slot < early; ++slot) {
      const Work work{blockIdx.x, slot, 0};
      if (!params.dependent) copy_x(work, slot);
      copy_weights(work, slot);
    }
    // The exceptions' places, three stages ahead; an item of more than three stages needs no ticket for that.
    if (params.steps <= 3) ptx::wait_for_previous_grids();
    Work now = look_ahead(cursor), next = look_ahead(cursor), after = look_ahead(cursor);
    __syncthreads();
    ptx::wait_for_previous_grids();
    std::uint32_t slot = 0, parity = 1;
    for (std::uint32_t count = 0;; ++count) {
      if (count >= params.stages) ptx::barrier_wait(base + map.empty + 8 * slot, parity);
      if (now.item == Stage::kNoItem) break;
      if (count >= early || params.dependent) copy_x(now, slot);
      if (count >= early) copy_weights(now, slot);
      finish(now, slot);
      cursor.ask();
      now = next;
      next = after;
      after = look_ahead(cursor);
      if (++slot == params.stages) {
        slot = 0;
        parity ^= 1;
      }
    }
    finish(now, slot);
    ptx::wait_for_async_copies();
  }
};

/// Decodes one tile of every stage and multiplies it with X. One of 16 warps.
template <class Config>
struct SmallBatchConsumer {
  using Traits = SmallBatchTraits<Config>;
  using Stage = SmallBatchStage<Config>;

  const SmallBatchParams& params;
  const SmallBatchMap<Config>& map;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t warp;
  std::uint32_t lane;

  using Fragments = device::TileFragments;

  [[nodiscard]] __device__ std::uint32_t strip_in_item() const {
    return Config::kWarpgroup ? warp % Config::kStrips : warp / Traits::kColTiles;
  }
  [[nodiscard]] __device__ std::uint32_t column() const {
    return Config::kWarpgroup ? warp / Config::kStrips : warp % Traits::kColTiles;
  }
  [[nodiscard]] __device__ std::uint32_t tile_in_stage() const {
    return strip_in_item() * Traits::kColTiles + column();
  }

  [[nodiscard]] __device__ std::uint8_t* exponents() const {
    return reinterpret_cast<std::uint8_t*>(shared + map.exponents) + warp * format::kTileValues;
  }

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

  /// The tile of a slot, from whatever form it has.
  __device__ Fragments load(std::uint32_t slot, const Stage& stage, const device::LanePalettes& palettes,
                            std::uint32_t strip, std::uint32_t column_tile) const {
    const std::uint32_t tile = map.weights + slot * Traits::kWeightBytes + tile_in_stage() * Traits::kTileStride;
    if constexpr (Config::kRaw) {
      return params.raw_by_tensor_copy ? load_raw(base + tile) : fetch_raw(strip, column_tile);
    } else {
      const uint2 list = stage.lists[tile_in_stage()];
      const std::byte* in_slot = shared + map.exceptions + slot * Config::kStrips * Traits::kExceptionBytes;
      const auto* units =
          (list.y & Stage::kNotInSlot) != 0 ? params.exceptions : reinterpret_cast<const std::uint16_t*>(in_slot);
      const device::FragmentDecoder decoder{exponents(), lane};
      return decoder.decode(shared + tile, palettes,
                            {units + list.x, list.y & ~Stage::kNotInSlot, params.exception_base});
    }
  }

  /// With X at shared-memory address `x`.
  __device__ void multiply(const Fragments& fragments, std::uint32_t x, float (&sums)[Config::kTokenTiles][4]) const {
    if constexpr (Config::kWarpgroup) {
      ptx::wgmma_fence(sums);
      UNWEIGHT_UNROLL
      for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand(x + 32 * s));
      ptx::wgmma_finish(sums);
    } else {
      multiply_alone(fragments, x, sums);
    }
  }

  __device__ void multiply_alone(const Fragments& fragments, std::uint32_t x,
                                 float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t row = x + (lane & 7) * 128 + ((lane >> 3 ^ (lane & 7)) * 16);
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

  /// Adds the sums of the strip's warps in their order and stores what lies inside Y.
  __device__ void store(std::uint32_t item, float (&sums)[Config::kTokenTiles][4]) const {
    constexpr std::uint32_t kSums = Traits::kPartSums;
    auto* all = reinterpret_cast<float*>(shared + map.sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t part = 0; part < Traits::kParts; ++part) {
      // All warps have read the sums before.
      ptx::named_barrier_sync(1, Traits::kConsumerThreads);
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kSums; ++i) {
        all[(tile_in_stage() * kSums + i) * device::kLanes + lane] = sums[part * Traits::kPartTiles + i / 4][i % 4];
      }
      ptx::named_barrier_sync(1, Traits::kConsumerThreads);
      for (std::uint32_t v = threadIdx.x; v < Config::kStrips * kSums * device::kLanes; v += Traits::kConsumerThreads) {
        const std::uint32_t strip = v / (kSums * device::kLanes), rest = v % (kSums * device::kLanes);
        float sum = 0;
        UNWEIGHT_UNROLL
        for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
          sum += all[(strip * Traits::kColTiles + c) * kSums * device::kLanes + rest];
        }
        const std::uint32_t i = rest / device::kLanes, l = rest % device::kLanes;
        const std::uint32_t row = item * Traits::kItemRows + strip * format::kTileRows + l / 4 + 8 * (i / 2 & 1);
        const std::uint32_t token = (part * Traits::kPartTiles + i / 4) * 8 + 2 * (l & 3) + (i & 1);
        if (row >= params.rows || token >= params.tokens) continue;
        if (params.bias != nullptr) sum += device::float_of_bf16(params.bias[row]);
        params.y[token * params.y_stride + row] = device::round_to_bf16(sum);
      }
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (float& sum : sums[t]) sum = 0;
    }
  }

  __device__ void run() const {
    float sums[Config::kTokenTiles][4] = {};
    device::LanePalettes palettes{};
    std::uint32_t slot = 0, parity = 0, item = 0;
    for (std::uint32_t step = 0;;) {
      ptx::barrier_wait(base + map.full + 8 * slot, parity);
      const Stage& stage = *reinterpret_cast<const Stage*>(shared + map.stages + slot * sizeof(Stage));
      if (step == 0) {
        item = stage.item;
        if (item == Stage::kNoItem) return;
        if constexpr (!Config::kRaw) {
          const auto* all = reinterpret_cast<const uint2*>(shared + map.palettes);
          const std::uint8_t* rows = stage.row_palettes + strip_in_item() * format::kTileRows;
          const uint2 first = all[rows[device::group_row(lane, 0)]], second = all[rows[device::group_row(lane, 1)]];
          palettes = {{{first.x, first.y}, {second.x, second.y}}};
        }
      }
      const std::uint32_t strip = item * Config::kStrips + strip_in_item();
      const std::uint32_t column_tile = step * Traits::kColTiles + column();
      // A warpgroup multiplies as one: a strip beyond the last has zeros.
      const bool strip_exists = strip < params.strips;
      if ((strip_exists || Config::kWarpgroup) && column_tile < params.tiles_per_strip) {
        Fragments fragments{};
        if (strip_exists) fragments = load(slot, stage, palettes, strip, column_tile);
        multiply(fragments, base + map.x + slot * Traits::kXBytes + column() * Traits::kXTileBytes, sums);
      }
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(base + map.empty + 8 * slot);
      if (++slot == params.stages) {
        slot = 0;
        parity ^= 1;
      }
      if (++step == params.steps) {
        step = 0;
        store(item, sums);
      }
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
  if (warp == Traits::kConsumers) {
    if (lane == 0) {
      if (params.x_by_tensor_copy) ptx::prefetch_tensor_map(&x_map);
      for (std::uint32_t slot = 0; slot < params.stages; ++slot) {
        ptx::barrier_init(base + map.full + 8 * slot, 1 + device::kLanes);
        ptx::barrier_init(base + map.empty + 8 * slot, Traits::kConsumers);
      }
      ptx::fence_barrier_init();
    }
    __syncwarp();
    SmallBatchProducer<Config>{params, x_map, raw_map, map, shared, base, lane, ptx::evict_first_policy()}.run();
  } else {
    if constexpr (!Config::kRaw) {
      for (std::uint32_t i = threadIdx.x; i < params.palette_count; i += Traits::kConsumerThreads) {
        reinterpret_cast<uint2*>(shared + map.palettes)[i] = params.palettes[i];
      }
    }
    __syncthreads();  // with the producer's: barriers and palettes are there
    ptx::wait_for_previous_grids();
    SmallBatchConsumer<Config>{params, map, shared, base, warp, lane}.run();
  }
}

}  // namespace unweight::sm90
