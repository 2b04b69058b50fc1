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

/// Decodes two tiles of every stage and multiplies them with X. One of 8 warps.
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
  static constexpr std::uint32_t kRowTiles = Traits::kRowTiles, kTokenTiles = Traits::kTokenTiles;
  using Sums = float[kRowTiles * kTokenTiles][4];
  using TileSums = float[kTokenTiles][4];

  std::uint32_t warp = 0;  ///< uniform, as far as the compiler knows
  uint2 carried{};         ///< a palette on its way to shared memory

  [[nodiscard]] __device__ std::uint32_t group() const { return warp / 4; }
  /// The warp's strip in the block: warpgroups have neighbouring strips, 64 rows a tile.
  [[nodiscard]] __device__ std::uint32_t strip(std::uint32_t row_tile) const {
    return (group() * kRowTiles + row_tile) * 4 + warp % 4;
  }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  /// Of the lane's rows, in a segment's first chunk.
  [[nodiscard]] __device__ device::LanePalettes look_up_palettes(std::uint32_t chunk, std::uint32_t row_tile) const {
    const auto* all = reinterpret_cast<const uint2*>(shared + Map::kPalettes);
    const std::uint8_t* numbers = this->chunk(chunk).row_palettes + strip(row_tile) * format::kTileRows;
    device::LanePalettes palettes{};
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 2; ++i) {
      const uint2 palette = all[numbers[device::group_row(lane, i)]];
      palettes.row[i] = {palette.x, palette.y};
    }
    return palettes;
  }

  [[nodiscard]] static __device__ std::uint32_t tile_at(std::uint32_t slot, std::uint32_t index) {
    return Map::kWeights + slot * Traits::kWeightBytes + index * Traits::kTileStride;
  }

  [[nodiscard]] __device__ device::FragmentDecoder decoder() const {
    auto* exponents = reinterpret_cast<std::uint8_t*>(shared + Map::kOwn + warp * Map::kOwnBytes);
    return {shared, params.exceptions, exponents, lane, 16 * lane, params.exception_base};
  }

  /// Raw weights: the tile as A operands. Outside the matrix zeros.
  __device__ Fragments fetch_tile(std::uint32_t slot, std::uint32_t index, const Segment& now,
                                  std::uint32_t column) const {
    if (params.raw_by_tensor_copy) return load_raw(base + tile_at(slot, index), lane);
    return fetch_raw(params, this->locate(now.item).first_strip + index, column, lane);
  }

  // ---- products -----------------------------------------------------------------------------------------------------

  static __device__ TileSums& sums_of(Sums& sums, std::uint32_t row_tile) {
    return reinterpret_cast<TileSums&>(sums[row_tile * kTokenTiles]);
  }

  /// Begins the product of a tile, after those before it.
  __device__ void begin_product(const Fragments& fragments, std::uint32_t x_slot, TileSums& sums) const {
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
  static UNWEIGHT_HOST_DEVICE constexpr bool begins_column(std::uint32_t i) { return kRowTiles == 1 || i == 0; }
  static UNWEIGHT_HOST_DEVICE constexpr bool ends_column(std::uint32_t i) { return kRowTiles == 1 || i == 1; }

  __device__ void multiply_tiled(const Segment& now, RingPlace& place, RingPlace& chunk_place, Sums& sums) const {
    Fragments fragments[2]{};
    device::LanePalettes palettes[kRowTiles];
    std::uint32_t in_chunk = 0;
    bool first = true;
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t left = now.end - now.begin; left != 0; --left) {
      if (in_chunk == 0) ptx::barrier_wait(this->chunk_full(chunk_place.slot), chunk_place.parity);
      const auto& chunk = this->chunk(chunk_place.slot);
      if (first) {
        UNWEIGHT_UNROLL
        for (std::uint32_t r = 0; r < kRowTiles; ++r) palettes[r] = look_up_palettes(chunk_place.slot, r);
      }
      device::ExceptionList lists[2];
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) lists[i] = chunk.lists[strip(i % kRowTiles)][in_chunk + i / kRowTiles];
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        if (begins_column(i)) ptx::barrier_wait(this->full(place.slot), place.parity);
        const std::byte* tile = shared + tile_at(place.slot, strip(i % kRowTiles));
        const device::TileParts parts = decoder().decode(tile, palettes[i % kRowTiles], lists[i]);
        fragments[i] = parts.join();
        if (ends_column(i)) this->arrive_once(parts.loaded(), this->empty(place.slot));
        if (begins_column(i)) ptx::barrier_wait(this->x_full(place.slot), place.parity);
        take_turn();
        begin_product(fragments[i], place.slot, sums_of(sums, i % kRowTiles));
        pass_turn();
        // The product before has ended; this one runs while the next tile is decoded.
        ptx::wgmma_wait_for_all_but_one();
        hold(fragments[i ^ 1]);
        if (begins_column(i)) this->release_x(place.previous(Traits::kSlots), !first);
        first = false;
        if (ends_column(i)) place.advance(1, Traits::kSlots);
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
    for (std::uint32_t step = now.begin; step < now.end; ++step) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        if (begins_column(i)) ptx::barrier_wait(this->full(place.slot), place.parity);
        const std::uint32_t column = step * Traits::kStageColumns + i / kRowTiles;
        const Fragments fragments = fetch_tile(place.slot, strip(i % kRowTiles), now, column);
        if (ends_column(i)) this->arrive_once(fragments.loaded(), this->empty(place.slot));
        if (begins_column(i)) ptx::barrier_wait(this->x_full(place.slot), place.parity);
        take_turn();
        begin_product(fragments, place.slot, sums_of(sums, i % kRowTiles));
        pass_turn();
        // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
        ptx::wgmma_wait(sums);
        if (!ends_column(i)) continue;
        this->release_x(place.slot);
        place.advance(1, Traits::kSlots);
      }
    }
  }
};

}  // namespace unweight::sm90
