// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_small_batch.cuh that decode and multiply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/raw_fragments.cuh>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/device/small_batch_sums.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/tile_fragments.cuh>
#include <cuda/device/warpgroup_sums.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/mma.cuh>
#include <cuda/ptx/registers.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Decodes one tile of every stage and multiplies it with X. One of 16 warps.
template <class Config>
struct SmallBatchConsumer : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::base, Block::map, Block::shared, Block::schedule;
  using Stage = SmallBatchStage<Config>;
  using Fragments = device::TileFragments;

  /// Where a warp's things lie in shared memory.
  struct Places {
    std::uint32_t strip;   ///< of an item
    std::uint32_t column;  ///< tile along K of a stage
    std::uint32_t tile;    ///< of slot 0
    std::uint32_t x;       ///< the lane's row for ldmatrix, or the tile for wgmma; of slot 0
    std::uint32_t own;     ///< the warp's own memory
    std::uint32_t lane16;  ///< 16 * lane
    std::uint32_t list;    ///< of slot 0
  };
  Places places{};
  uint2 carried{};  ///< a palette on its way to shared memory

  __device__ void find_places() {
    // From a shuffle, so that the compiler knows it to be the same for all lanes, and what follows from it.
    const std::uint32_t warp = __shfl_sync(device::kAllLanes, threadIdx.x / device::kLanes, 0);
    places.strip = Config::kWarpgroup ? warp % Config::kStrips : warp / Traits::kColTiles;
    places.column = Config::kWarpgroup ? warp / Config::kStrips : warp % Traits::kColTiles;
    if constexpr (Traits::kColTiles == 1) places.strip = warp, places.column = 0;  // fewer registers
    const std::uint32_t tile = Config::kRaw ? places.column * Config::kStrips + places.strip
                                            : places.strip * Traits::kColTiles + places.column;
    places.tile = map.weights + tile * Traits::kTileStride;
    places.x = base + map.x + places.column * params.x_tile_bytes() +
               (Config::kWarpgroup ? 0 : (lane & 7) * 128 + ((lane >> 3 ^ (lane & 7)) * 16));
    places.own = map.warps + warp * Traits::kWarpBytes;
    places.list = map.stages + tile * static_cast<std::uint32_t>(sizeof(device::ExceptionList));
    places.lane16 = 16 * lane;
    ptx::keep(places.lane16);
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

  /// The tile of a slot, from whatever form it has, as join() takes it.
  /// @param exists  whether there is such a tile; otherwise zeros
  __device__ auto load(std::uint32_t slot, const device::LanePalettes& palettes, std::uint32_t item, std::uint32_t step,
                       bool exists) const {
    const std::uint32_t tile = places.tile + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      // Outside the matrix both give zeros.
      if (params.raw_by_tensor_copy) return load_raw(base + tile, lane);
      return fetch_raw(params, item * Config::kStrips + places.strip, step * Traits::kColTiles + places.column, lane);
    } else {
      auto* exponents = reinterpret_cast<std::uint8_t*>(shared + places.own);
      const auto* place = reinterpret_cast<const device::ExceptionList*>(shared + places.list + slot * sizeof(Stage));
      const device::ExceptionList list = exists ? *place : device::ExceptionList::absent();
      const device::FragmentDecoder decoder{shared, params.exceptions, exponents,
                                            lane,   places.lane16,     params.exception_base};
      return decoder.decode(shared + tile, palettes, list);
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

  __device__ void hold(const Fragments& fragments) const { ptx::wgmma_hold(fragments.a, params.stages); }

  /// A warp's own product.
  /// @return a word of each load of X, in one
  [[nodiscard]] __device__ std::uint32_t multiply(const Fragments& fragments, std::uint32_t slot,
                                                  float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t row = places.x + slot * Traits::kXBytes;
    std::uint32_t loaded = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (std::uint32_t half = 0; half < 2; ++half) {
        std::uint32_t b[4];
        ptx::load_matrices(b, (row ^ 64 * half) + t * 1024);
        loaded ^= b[0];
        const auto& a = fragments.a;
        const std::uint32_t s = 2 * half;
        ptx::mma_16x8x16(sums[t], a[s][0], a[s][1], a[s][2], a[s][3], b[0], b[1]);
        ptx::mma_16x8x16(sums[t], a[s + 1][0], a[s + 1][1], a[s + 1][2], a[s + 1][3], b[2], b[3]);
      }
    }
    return loaded;
  }

  __device__ void begin() {
    if constexpr (!Config::kRaw) {
      static_assert(format::kMaxPalettes <= Traits::kConsumerThreads);
      if (threadIdx.x < params.palette_count) carried = params.palettes[threadIdx.x];
    }
  }

  __device__ void share_palettes() const {
    if constexpr (!Config::kRaw) {
      if (threadIdx.x < params.palette_count) {
        reinterpret_cast<uint2*>(shared + map.palettes)[threadIdx.x] = carried;
      }
      ptx::named_barrier_sync(kConsumersMeet, Traits::kConsumerThreads);
    }
  }

  __device__ void run() {
    share_palettes();
    find_places();
    float sums[Config::kTokenTiles][4] = {};
    [[maybe_unused]] Fragments in_product{};
    device::LanePalettes palettes{};
    RingPlace place;
    [[maybe_unused]] RingPlace x_place;
    Segment now = schedule.segment(0);
    for (std::uint32_t n = 1; now.exists(); ++n) {
      // In steps before `end` the warp has a tile; the last strips of W and the last columns may be missing.
      const std::uint32_t strip = now.item * Config::kStrips + places.strip;
      const std::uint32_t end =
          strip < params.strips ? (params.tiles_per_strip - places.column + Traits::kColTiles - 1) / Traits::kColTiles
                                : 0;
      ptx::barrier_wait(this->full(place.slot), place.parity);
      palettes = look_up_palettes(place.slot);
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t slot = place.slot;
        ptx::barrier_wait(this->full(slot), place.parity);
        const auto tile = load(slot, palettes, now.item, step, step < end);
        place.advance(1, params.stages);
        if constexpr (Config::kWarpgroup) {
          this->arrive_once(tile.loaded(), this->empty(slot));
          // The product of the step before has run while this tile was decoded.
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          ptx::wgmma_wait(sums);  // also where none has begun: under a condition ptxas would make all of them wait
          hold(in_product);
          this->arrive(this->x_empty(x_place.previous(Traits::kXSlots)), step != now.begin);
          in_product = join(tile);
          begin_product(in_product, x_place.slot, sums);
          x_place.advance(1, Traits::kXSlots);
          // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
          if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
        } else if constexpr (Traits::kXApart) {
          this->arrive_once(tile.loaded(), this->empty(slot));
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          this->arrive_once(multiply(join(tile), x_place.slot, sums), this->x_empty(x_place.slot));
          x_place.advance(1, Traits::kXSlots);
        } else {
          const std::uint32_t x = multiply(join(tile), slot, sums);
          this->arrive_once(tile.loaded() ^ x, this->empty(slot));
        }
      }
      if constexpr (Config::kWarpgroup) {
        ptx::wgmma_wait(sums);
        hold(in_product);
        this->arrive(this->x_empty(x_place.previous(Traits::kXSlots)));
      }
      if constexpr (Config::kWarpgroup) {
        WarpgroupSums<Config>{*this, places.strip, places.column, places.own, params.deal.parts}.store(now, sums);
      } else {
        SmallBatchSums<Config>{*this}.store(now, places.own, sums);
      }
      now = schedule.segment(n);
    }
  }
};

}  // namespace unweight::sm90
