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
/// wgmma with A in registers holds up its warp until the tensor cores have begun with it, so what a warp does between
/// products overlaps with the other warpgroup's products alone, and should take no longer. Therefore it asks for what
/// the next stage's tiles need before it begins a product, and gets it afterwards. Values are joined, to the registers
/// that the product before has read, when that has ended: registers hold the sums and one stage's operands, no more.
template <class Config>
struct LargeBatchConsumer : SmallBatchConsumer<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Base = SmallBatchConsumer<Config>;
  using Base::params, Base::lane, Base::base, Base::map, Base::shared, Base::schedule, Base::places;
  using Stage = SmallBatchStage<Config>;
  using Fragments = device::TileFragments;
  static constexpr std::uint32_t kTiles = Config::kWarpTiles;

  [[nodiscard]] __device__ device::FragmentDecoder decoder() const {
    auto* exponents = reinterpret_cast<std::uint8_t*>(shared + places.own);
    return {shared, params.exceptions, exponents, lane, places.lane16, params.exception_base};
  }

  [[nodiscard]] __device__ const std::byte* tiles_of(std::uint32_t slot) const {
    return shared + places.tile + slot * Traits::kWeightBytes;
  }
  [[nodiscard]] __device__ const device::ExceptionList* lists_of(std::uint32_t slot) const {
    return reinterpret_cast<const device::ExceptionList*>(shared + places.list + slot * sizeof(Stage));
  }

  using Requests = device::FragmentDecoder::Request[kTiles];
  __device__ void ask_lists(Requests& requests, std::uint32_t slot) const {
    // Of the lane, as far as the compiler knows: it would wait for a warp's list at once, for a uniform register.
    const std::uint32_t zero = lane * (params.stages / 32);
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kTiles; ++i) requests[i].list = lists_of(slot)[i + zero].packed;
  }
  __device__ void ask(Requests& requests, std::uint32_t slot) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kTiles; ++i) decoder().ask(requests[i], tiles_of(slot) + i * format::kTileBytes);
  }

  /// A stage's tile number i of raw weights. Only when no product is under way: ldmatrix would write, while one reads,
  /// what ptxas believes to be free.
  __device__ Fragments fetch(std::uint32_t slot, std::uint32_t i, std::uint32_t rows, std::uint32_t step) const {
    // Outside the matrix both give zeros.
    const std::uint32_t tile = places.tile + slot * Traits::kWeightBytes + i * Config::kStrips * Traits::kTileStride;
    if (params.raw_by_tensor_copy) return this->load_raw(base + tile);
    return this->fetch_raw(rows * Config::kStrips + places.strip, step * Traits::kColTiles + i);
  }

  /// Begins the product of a tile, after those before it.
  /// @param first  none is under way
  __device__ void begin_product(const Fragments& fragments, std::uint32_t x_slot, bool first,
                                float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t b = ptx::wgmma_operand(places.x + x_slot * Traits::kXBytes);
    if (first) {
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
    for (const Fragments& f : fragments) ptx::wgmma_hold_apart(f.a, params.stages);
  }

  __device__ void run() {
    static_assert(Config::kWarpgroup && Traits::kStripWarps == 1 && Traits::kColTiles == kTiles && kTiles == 2);
    this->share_palettes();
    this->find_places();
    float sums[Config::kTokenTiles][4] = {};
    Fragments fragments[kTiles]{};
    [[maybe_unused]] Requests requests{};
    RingPlace place, x_place;
    SmallBatchSegment now = schedule.segment(0);
    for (std::uint32_t n = 1; now.exists(); ++n) {
      const std::uint32_t rows = this->locate(now.item).rows;
      const SmallBatchSegment then = schedule.segment(n);
      ptx::barrier_wait(this->full(place.slot), place.parity);
      const device::LanePalettes palettes = this->look_up_palettes(place.slot);
      if (!Config::kRaw && n == 1) {
        ask_lists(requests, place.slot);
        ask(requests, place.slot);
      }
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t slot = place.slot;
        if constexpr (Config::kRaw) {
          ptx::barrier_wait(this->full(slot), place.parity);
          UNWEIGHT_UNROLL
          for (std::uint32_t i = 0; i < kTiles; ++i) {
            ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
            end_products(fragments, sums);
            fragments[i] = fetch(slot, i, rows, step);
            begin_product(fragments[i], x_place.slot, true, sums);
            ptx::wgmma_wait(sums);
            this->release_x(x_place.slot);
            x_place.advance(1, Traits::kXSlots);
          }
          this->arrive(this->empty(slot));  // products have ended that needed what was loaded
          place.advance(1, params.stages);
        } else {
          decoder().decode_exponents(requests, palettes, lists_of(slot));
          if (step != now.begin) {  // all products but the last have ended
            ptx::wgmma_wait_for_all_but_one();
            this->release_x(x_place.previous(Traits::kXSlots, 2));
          }
          place.advance(1, params.stages);
          if (step + 1 < now.end || then.exists()) {
            ptx::barrier_wait(this->full(place.slot), place.parity);
            ask_lists(requests, place.slot);
          }
          device::TileBytes bytes[kTiles];
          UNWEIGHT_UNROLL
          for (std::uint32_t i = 0; i < kTiles; ++i) bytes[i] = decoder().load(tiles_of(slot), i).bytes();
          RingPlace next_x = x_place;
          next_x.advance(1, Traits::kXSlots);
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          ptx::barrier_wait(this->x_full(next_x.slot), next_x.parity);
          end_products(fragments, sums);
          fragments[0] = bytes[0].interleave();
          begin_product(fragments[0], x_place.slot, true, sums);
          ask(requests, place.slot);  // where there is no next stage, for nothing
          fragments[1] = bytes[1].interleave();
          begin_product(fragments[1], next_x.slot, false, sums);
          // Not before: an arrival may overtake loads whose values nothing has needed.
          this->arrive(this->empty(slot));
          this->release_x(x_place.previous(Traits::kXSlots), step != now.begin);
          x_place.advance(kTiles, Traits::kXSlots);
        }
      }
      end_products(fragments, sums);
      if constexpr (!Config::kRaw) {
        this->release_x(x_place.previous(Traits::kXSlots, 2));
        this->release_x(x_place.previous(Traits::kXSlots));
      }
      LargeBatchSums<Config>{*this}.store(now, places.own, sums);
      now = then;
    }
  }
};

}  // namespace unweight::sm90
