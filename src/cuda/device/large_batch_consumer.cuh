// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_large_batch.cuh that decode and multiply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/device/large_batch_sums.cuh>
#include <cuda/device/raw_fragments.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/tile_fragments.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/registers.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Decodes the tiles of a strip and multiplies them with X. One of 8 warps.
///
/// wgmma with A in registers holds up its warp until the tensor cores have begun with it, so what a warp does between
/// products overlaps with the end of its own and with the other warpgroup's. Two sets of operands take turns: a product
/// is begun before the one ahead of it is waited for.
template <class Config>
struct LargeBatchConsumer : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Block::params, Block::lane, Block::base, Block::shared, Block::schedule;
  using Fragments = device::TileFragments;
  using Sums = float[Traits::kTokenTiles][4];

  std::uint32_t warp = 0;  ///< uniform, as far as the compiler knows; also the number of its strip in the block
  uint2 carried{};         ///< a palette on its way to shared memory

  [[nodiscard]] __device__ std::uint32_t group() const { return warp / 4; }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  /// Of the lane's rows, in a segment's first chunk.
  [[nodiscard]] __device__ device::LanePalettes look_up_palettes(std::uint32_t chunk) const {
    const auto* all = reinterpret_cast<const uint2*>(shared + Map::kPalettes);
    const std::uint8_t* numbers = this->chunk(chunk).row_palettes + warp * format::kTileRows;
    device::LanePalettes palettes{};
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 2; ++i) {
      const uint2 palette = all[numbers[device::group_row(lane, i)]];
      palettes.row[i] = {palette.x, palette.y};
    }
    return palettes;
  }

  /// The warp's tile in a slot.
  [[nodiscard]] __device__ std::uint32_t tile_at(std::uint32_t slot) const {
    return Map::kWeights + slot * Traits::kWeightBytes + warp * Traits::kTileStride;
  }

  [[nodiscard]] __device__ device::FragmentDecoder decoder() const {
    auto* exponents = reinterpret_cast<std::uint8_t*>(shared + Map::kOwn + warp * Map::kOwnBytes);
    return {shared, params.exceptions, exponents, lane, 16 * lane, params.exception_base};
  }

  /// Raw weights: the tile as A operands. Outside the matrix zeros.
  __device__ Fragments fetch_tile(std::uint32_t slot, const Segment& now, std::uint32_t column) const {
    if (params.raw_by_tensor_copy) return load_raw(base + tile_at(slot), lane);
    return fetch_raw(params, this->locate(now.item).first_strip + warp, column, lane);
  }

  // ---- products -----------------------------------------------------------------------------------------------------

  /// Begins the product of a tile, after those before it.
  __device__ void begin_product(const Fragments& fragments, std::uint32_t x_slot, Sums& sums) const {
    const std::uint32_t b = ptx::wgmma_operand(base + Map::kX + x_slot * Traits::kXBytes);
    ptx::wgmma_fence_again();
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand_at(b, 16 * s));
    ptx::wgmma_commit();
  }

  /// That operands stay where they are until their product has ended; see ptx::wgmma_hold_apart().
  __device__ void hold(const Fragments& fragments) const { ptx::wgmma_hold_apart(fragments.a, params.deal.parts); }

  // The warpgroups take turns: one decodes while the other begins a product, which takes as long as the tensor cores
  // need to get to its end.
  __device__ void take_turn() const { ptx::named_barrier_sync(kTurn + group(), Traits::kConsumerThreads); }
  __device__ void pass_turn() const { ptx::named_barrier_arrive(kTurn + (group() ^ 1), Traits::kConsumerThreads); }

  // ---- the warp's work ----------------------------------------------------------------------------------------------

  /// Before the block's threads meet.
  __device__ void begin_work() {
    if constexpr (!Config::kRaw) {
      static_assert(format::kMaxPalettes <= Traits::kConsumerThreads);
      if (threadIdx.x < params.palette_count) carried = params.palettes[threadIdx.x];
    }
  }

  __device__ void share_palettes() const {
    if constexpr (!Config::kRaw) {
      if (threadIdx.x < params.palette_count) {
        reinterpret_cast<uint2*>(shared + Map::kPalettes)[threadIdx.x] = carried;
      }
      ptx::named_barrier_sync(kPalettesThere, Traits::kConsumerThreads);
    }
  }

  __device__ void run() {
    share_palettes();
    // From a shuffle, so that the compiler knows it to be the same for all lanes, and what follows from it.
    warp = __shfl_sync(device::kAllLanes, threadIdx.x / device::kLanes, 0);
    Sums sums = {};
    RingPlace place, chunk_place;
    if (group() == 1) pass_turn();
    for (std::uint32_t n = 0; schedule.segment(n).exists(); ++n) {
      if constexpr (Config::kRaw) {
        multiply_raw(schedule.segment(n), place, sums);
      } else {
        multiply_tiled(schedule.segment(n), place, chunk_place, sums);
      }
      LargeBatchSums<Config>{*this}.store(schedule.segment(n), sums);
    }
    if (group() == 0) take_turn();  // the other's last
  }

 private:
  __device__ void multiply_tiled(const Segment& now, RingPlace& place, RingPlace& chunk_place, Sums& sums) const {
    Fragments fragments[2]{};
    device::LanePalettes palettes;
    std::uint32_t in_chunk = 0;
    bool first = true;
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t left = now.end - now.begin; left != 0; --left) {
      if (in_chunk == 0) ptx::barrier_wait(this->chunk_full(chunk_place.slot), chunk_place.parity);
      if (first) palettes = look_up_palettes(chunk_place.slot);
      device::ExceptionList lists[2];
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) lists[i] = this->chunk(chunk_place.slot).lists[warp][in_chunk + i];
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        ptx::barrier_wait(this->full(place.slot), place.parity);
        const device::TileParts parts = decoder().decode(shared + tile_at(place.slot), palettes, lists[i]);
        fragments[i] = parts.join();
        this->arrive_once(parts.loaded(), this->empty(place.slot));
        ptx::barrier_wait(this->x_full(place.slot), place.parity);
        take_turn();
        begin_product(fragments[i], place.slot, sums);
        pass_turn();
        // The product before has ended; this one runs while the next tile is decoded.
        ptx::wgmma_wait_for_all_but_one();
        hold(fragments[i ^ 1]);
        this->release_x(place.previous(Traits::kSlots), !first);
        first = false;
        place.advance(1, Traits::kSlots);
      }
      in_chunk += Traits::kStageColumns;
      if (in_chunk == Traits::kChunkColumns || left == 1) {
        this->arrive(this->chunk_empty(chunk_place.slot));
        chunk_place.advance(1, Traits::kChunks);
        in_chunk = 0;
      }
    }
    ptx::wgmma_wait(sums);
    UNWEIGHT_UNROLL
    for (const Fragments& f : fragments) hold(f);
    this->release_x(place.previous(Traits::kSlots));
  }

  __device__ void multiply_raw(const Segment& now, RingPlace& place, Sums& sums) const {
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t column = now.begin * Traits::kStageColumns; column < now.end * Traits::kStageColumns; ++column) {
      ptx::barrier_wait(this->full(place.slot), place.parity);
      const Fragments fragments = fetch_tile(place.slot, now, column);
      this->arrive_once(fragments.loaded(), this->empty(place.slot));
      ptx::barrier_wait(this->x_full(place.slot), place.parity);
      take_turn();
      begin_product(fragments, place.slot, sums);
      pass_turn();
      // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
      ptx::wgmma_wait(sums);
      this->release_x(place.slot);
      place.advance(1, Traits::kSlots);
    }
  }
};

}  // namespace unweight::sm90
