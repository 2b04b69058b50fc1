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
/// products overlaps with the end of its own and with the other warpgroup's. Two sets of operands take turns: a product
/// is begun before the one ahead of it is waited for.
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

  using Request = device::FragmentDecoder::Request[1];
  /// Asks where the exceptions of a stage's tile are, then for them and its codes.
  __device__ void ask_list(Request& request, std::uint32_t slot, std::uint32_t i) const {
    // Of the lane, as far as the compiler knows: it would wait for a warp's list at once, for a uniform register.
    const std::uint32_t zero = lane * (params.stages / 32);
    request[0].list = lists_of(slot)[i + zero].packed;
  }
  __device__ void ask(Request& request, std::uint32_t slot, std::uint32_t i) const {
    decoder().ask(request[0], tiles_of(slot) + i * format::kTileBytes);
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
  __device__ void begin_product(const Fragments& fragments, std::uint32_t x_slot,
                                float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t b = ptx::wgmma_operand(places.x + x_slot * Traits::kXBytes);
    ptx::wgmma_fence_again();
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) ptx::wgmma(sums, fragments.a[s], ptx::wgmma_operand_at(b, 16 * s));
    ptx::wgmma_commit();
  }

  // The warpgroups take turns: one decodes while the other begins a product, which takes as long as the tensor cores
  // need to get to its end.
  __device__ void take_turn() const { ptx::named_barrier_sync(kTurn + group_number(), Traits::kConsumerThreads); }
  __device__ void pass_turn() const {
    ptx::named_barrier_arrive(kTurn + (group_number() ^ 1), Traits::kConsumerThreads);
  }
  [[nodiscard]] __device__ std::uint32_t group_number() const { return places.strip / 4; }

  __device__ void run() {
    static_assert(Config::kWarpgroup && Traits::kStripWarps == 1 && Traits::kColTiles == kTiles && kTiles == 2);
    this->share_palettes();
    this->find_places();
    float sums[Config::kTokenTiles][4] = {};
    Fragments fragments[kTiles]{};
    [[maybe_unused]] Request request{};
    RingPlace place, x_place;
    SmallBatchSegment now = schedule.segment(0);
    if (group_number() == 1) pass_turn();
    for (std::uint32_t n = 1; now.exists(); ++n) {
      const std::uint32_t rows = this->locate(now.item).rows;
      const SmallBatchSegment then = schedule.segment(n);
      ptx::barrier_wait(this->full(place.slot), place.parity);
      const device::LanePalettes palettes = this->look_up_palettes(place.slot);
      for (std::uint32_t step = now.begin; step < now.end; ++step) {
        const std::uint32_t slot = place.slot;
        ptx::barrier_wait(this->full(slot), place.parity);
        place.advance(1, params.stages);
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < kTiles; ++i) {
          if constexpr (Config::kRaw) {
            fragments[i] = fetch(slot, i, rows, step);
            if (i + 1 == kTiles) this->arrive_once(fragments[i].loaded(), this->empty(slot));
          } else {
            ask_list(request, slot, i);
            ask(request, slot, i);
            decoder().decode_exponents(request, palettes, lists_of(slot) + i);
            const device::TileParts parts = decoder().load(tiles_of(slot) + i * format::kTileBytes);
            fragments[i] = parts.join();
            if (i + 1 == kTiles) this->arrive_once(parts.loaded(), this->empty(slot));
          }
          ptx::barrier_wait(this->x_full(x_place.slot), x_place.parity);
          take_turn();
          begin_product(fragments[i], x_place.slot, sums);
          pass_turn();
          if constexpr (Config::kRaw) {
            ptx::wgmma_wait(sums);
            this->release_x(x_place.slot);
          } else {
            // The product before has ended; this one runs while the next tile is decoded.
            ptx::wgmma_wait_for_all_but_one();
            ptx::wgmma_hold_apart(fragments[(i + 1) % kTiles].a, params.stages);
            this->release_x(x_place.previous(Traits::kXSlots), step != now.begin || i != 0);
          }
          x_place.advance(1, Traits::kXSlots);
        }
      }
      if constexpr (!Config::kRaw) {
        ptx::wgmma_wait(sums);
        UNWEIGHT_UNROLL
        for (const Fragments& f : fragments) ptx::wgmma_hold_apart(f.a, params.stages);
        this->release_x(x_place.previous(Traits::kXSlots));
      }
      LargeBatchSums<Config>{*this}.store(now, places.own, sums);
      now = then;
    }
    if (group_number() == 0) take_turn();  // the other's last
  }
};

}  // namespace unweight::sm90
