// SPDX-License-Identifier: Apache-2.0
//
// The consumers of kernels/sm90_small_batch.cuh for more than 64 tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/small_batch_consumer.cuh>
#include <cuda/device/small_batch_sums.cuh>
#include <cuda/device/tile_fragments.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Decodes kWarpTiles neighbouring tiles of every stage and multiplies them with X. One of 8 warps.
///
/// A warpgroup's product runs while its next tiles' exponents are decoded, into the warps' own memory. Only when it has
/// ended are values joined, to the registers that it has read: registers hold the sums and one product's operands, no
/// more. Meanwhile the other warpgroup's product has the tensor cores.
template <class Config>
struct LargeBatchConsumer : SmallBatchConsumer<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Base = SmallBatchConsumer<Config>;
  using Base::params, Base::lane, Base::base, Base::map, Base::shared, Base::schedule, Base::places;
  using Stage = SmallBatchStage<Config>;
  using Fragments = device::TileFragments;
  static constexpr std::uint32_t kTiles = Config::kWarpTiles;

  /// How many of the warp's tiles of a stage there are: the last strips of W and the last columns may be missing.
  [[nodiscard]] __device__ std::uint32_t existing(std::uint32_t rows, std::uint32_t step) const {
    const std::uint32_t strip = rows * Config::kStrips + places.strip, column = step * Traits::kColTiles;
    return strip < params.strips && column < params.tiles_per_strip ? params.tiles_per_strip - column : 0;
  }

  [[nodiscard]] __device__ device::FragmentDecoder decoder() const {
    auto* exponents = reinterpret_cast<std::uint8_t*>(shared + places.own);
    return {shared, params.exceptions, exponents, lane, params.exception_base};
  }

  __device__ void decode_exponents(std::uint32_t slot, const device::LanePalettes& palettes, std::uint32_t rows,
                                   std::uint32_t step) const {
    if constexpr (!Config::kRaw) {
      const auto* lists = reinterpret_cast<const device::ExceptionList*>(shared + places.list + slot * sizeof(Stage));
      decoder().template decode_exponents<kTiles>(shared + places.tile + slot * Traits::kWeightBytes, palettes, lists,
                                                  existing(rows, step));
    }
  }

  /// The A operands of a stage's tile number i.
  __device__ Fragments join(std::uint32_t slot, std::uint32_t rows, std::uint32_t step, std::uint32_t i) const {
    const std::uint32_t tiles = places.tile + slot * Traits::kWeightBytes;
    if constexpr (Config::kRaw) {
      // Outside the matrix both give zeros.
      if (params.raw_by_tensor_copy) return this->load_raw(base + tiles + i * Config::kStrips * Traits::kTileStride);
      return this->fetch_raw(rows * Config::kStrips + places.strip, step * Traits::kColTiles + i);
    } else {
      return decoder().load(shared + tiles, i).join();
    }
  }

  __device__ void begin_product(const Fragments (&fragments)[kTiles], std::uint32_t x_slot,
                                float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wgmma_fence(sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kTiles; ++i) {
      const std::uint32_t b = ptx::wgmma_operand(places.x + x_slot * Traits::kXBytes + i * Traits::kXTileBytes);
      UNWEIGHT_UNROLL
      for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments[i].a[s], ptx::wgmma_operand_at(b, 16 * s));
    }
    ptx::wgmma_commit();
  }

  /// Waits for the product under way, if there is one; under a condition ptxas would make all of them wait.
  __device__ void end_product(const Fragments (&fragments)[kTiles], std::uint32_t x_slot, bool exists,
                              float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wgmma_wait(sums);
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kTiles; ++i) this->hold(fragments[i]);
    this->release_x(x_slot, exists);
  }

  __device__ void run() {
    static_assert(Config::kWarpgroup && Traits::kStripWarps == 1 && Traits::kColTiles == kTiles);
    this->share_palettes();
    this->find_places();
    float sums[Config::kTokenTiles][4] = {};
    Fragments fragments[kTiles]{};
    RingPlace place, x_place;
    SmallBatchSegment now = schedule.segment(0);
    for (std::uint32_t n = 1; now.exists(); ++n) {
      const std::uint32_t rows = this->locate(now.item).rows;
      ptx::barrier_wait(this->full(place.slot), place.parity);
      const device::LanePalettes palettes = this->look_up_palettes(place.slot);
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t slot = place.slot;
        ptx::barrier_wait(this->full(slot), place.parity);
        decode_exponents(slot, palettes, rows, step);
        end_product(fragments, x_place.previous(Traits::kXSlots), step != now.begin, sums);
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < kTiles; ++i) fragments[i] = join(slot, rows, step, i);
        this->arrive(this->empty(slot));
        place.advance(1, params.stages);
        ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
        begin_product(fragments, x_place.slot, sums);
        x_place.advance(1, Traits::kXSlots);
        // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
        if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
      }
      end_product(fragments, x_place.previous(Traits::kXSlots), true, sums);
      SmallBatchSums<Config>{*this}.store(now, places.own, sums);
      now = schedule.segment(n);
    }
  }
};

}  // namespace unweight::sm90
