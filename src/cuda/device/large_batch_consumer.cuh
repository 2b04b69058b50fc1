// SPDX-License-Identifier: Apache-2.0
//
// The consumers of kernels/sm90_small_batch.cuh for more than 64 tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/large_batch_sums.cuh>
#include <cuda/device/small_batch_consumer.cuh>
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

  /// A stage's tile number i, as interleave() takes it. Of raw weights nothing yet: ldmatrix would write, while the
  /// product before reads, what ptxas believes to be free.
  __device__ auto load(std::uint32_t slot, std::uint32_t i) const {
    if constexpr (Config::kRaw) {
      return i;
    } else {
      return decoder().load(shared + places.tile + slot * Traits::kWeightBytes, i).bytes();
    }
  }

  /// The A operands, once the products that had these registers have ended.
  template <class Loaded>
  __device__ Fragments interleave(const Loaded& loaded, std::uint32_t slot, std::uint32_t rows,
                                  std::uint32_t step) const {
    if constexpr (Config::kRaw) {
      // Outside the matrix both give zeros.
      const std::uint32_t tile =
          places.tile + slot * Traits::kWeightBytes + loaded * Config::kStrips * Traits::kTileStride;
      if (params.raw_by_tensor_copy) return this->load_raw(base + tile);
      return this->fetch_raw(rows * Config::kStrips + places.strip, step * Traits::kColTiles + loaded);
    } else {
      return loaded.interleave();
    }
  }

  /// Begins the product of a stage's tile number i, after those before it.
  __device__ void begin_product(const Fragments& fragments, std::uint32_t x_slot, std::uint32_t i,
                                float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t b = ptx::wgmma_operand(places.x + x_slot * Traits::kXBytes + i * Traits::kXTileBytes);
    if (i == 0) {
      ptx::wgmma_fence(sums);
    } else {
      ptx::wgmma_fence_again();
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand_at(b, 16 * s));
    ptx::wgmma_commit();
  }

  /// Waits for the products under way, if there are any; under a condition ptxas would make all of them wait.
  __device__ void end_products(const Fragments (&fragments)[kTiles], float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wgmma_wait(sums);
    UNWEIGHT_UNROLL
    for (const Fragments& f : fragments) this->hold(f);
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
        const auto first = load(slot, 0);
        ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
        end_products(fragments, sums);
        fragments[0] = interleave(first, slot, rows, step);
        begin_product(fragments[0], x_place.slot, 0, sums);
        this->release_x(x_place.previous(Traits::kXSlots), step != now.begin);
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 1; i < kTiles; ++i) {
          if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
          fragments[i] = interleave(load(slot, i), slot, rows, step);
          begin_product(fragments[i], x_place.slot, i, sums);
        }
        this->arrive(this->empty(slot));
        if constexpr (Config::kRaw) ptx::wgmma_wait(sums);
        place.advance(1, params.stages);
        x_place.advance(1, Traits::kXSlots);
      }
      end_products(fragments, sums);
      this->release_x(x_place.previous(Traits::kXSlots));
      LargeBatchSums<Config>{*this}.store(now, places.own, sums);
      now = schedule.segment(n);
    }
  }
};

}  // namespace unweight::sm90
