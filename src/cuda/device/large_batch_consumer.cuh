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
#include <cuda/device/tile_patch.cuh>
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

  // ---- palettes -----------------------------------------------------------------------------------------------------

  /// Of the lane's rows, in a segment's first slot.
  [[nodiscard]] __device__ device::LanePalettes look_up_palettes(std::uint32_t slot, std::uint32_t row_tile) const {
    device::LanePalettes palettes{};
    if constexpr (!Config::kRaw) {
      const auto* all = reinterpret_cast<const uint2*>(shared + Map::kPalettes);
      const auto* numbers = reinterpret_cast<const std::uint8_t*>(shared + Map::kRows) + slot * Traits::kRowBytes +
                            strip(row_tile) * format::kTileRows;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        const uint2 palette = all[numbers[device::group_row(lane, i)]];
        palettes.row[i] = {palette.x, palette.y};
      }
    }
    return palettes;
  }

  // ---- tiles --------------------------------------------------------------------------------------------------------

  /// @param index  of the tile in its slot
  __device__ device::TileParts decode(std::uint32_t slot, std::uint32_t index,
                                      const device::LanePalettes& palettes) const {
    std::byte* tile = shared + Map::kWeights + slot * Traits::kWeightBytes + index * format::kTileBytes;
    const std::uint32_t place = slot * Config::kStrips + index;
    const device::ExceptionList& list = reinterpret_cast<const device::ExceptionList*>(shared + Map::kLists)[place];
    const auto& tile_patch = *reinterpret_cast<const device::TilePatch*>(shared + Map::kPatches +
                                                                         place * sizeof(device::TilePatch));
    const uint2 codes01 = *reinterpret_cast<const uint2*>(tile + format::kCodes01Offset + 8 * lane);
    const std::uint32_t codes2 = *reinterpret_cast<const std::uint32_t*>(tile + format::kCodes2Offset + 4 * lane);
    const device::LanePatch patch = device::LanePatch::of(tile_patch, lane);
    const uint4 sm0 = *reinterpret_cast<const uint4*>(tile + 16 * lane);
    const uint4 sm1 = *reinterpret_cast<const uint4*>(tile + 16 * (device::kLanes + lane));
    const std::uint32_t packed = list.packed;
    const device::LaneSelectors selectors = device::unpack_selectors({codes01.x, codes01.y, codes2});
    device::TileParts parts{{sm0.x, sm0.y, sm0.z, sm0.w, sm1.x, sm1.y, sm1.z, sm1.w}, {}};
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < device::kLaneGroups; ++g) {
      parts.rotated[g] = patch.apply(device::look_up_group(palettes, selectors, g), g);
    }
    if (__builtin_expect(packed != 0, 0)) {
      UNWEIGHT_UNROLL
      for (std::uint32_t g = 0; g < device::kLaneGroups; ++g) {
        parts.rotated[g] = device::look_up_group(palettes, selectors, g);
      }
      // Where sign and mantissa were: every lane has loaded its own, and nobody else needs them.
      auto* plane = reinterpret_cast<std::uint8_t*>(tile);
      device::FragmentDecoder{shared, params.exceptions, plane, lane, 16 * lane, params.exception_base}.put_list(
          list, parts.rotated);
      ptx::fence_async_proxy();  // before the next column's copy
    }
    return parts;
  }

  /// Tile number i of a stage as A operands; gives its slot back after the last.
  /// @param n, left  the segment, and how many of its stages are left, this one included
  __device__ Fragments fetch(std::uint32_t i, std::uint32_t slot, std::uint32_t n, std::uint32_t left,
                             const device::LanePalettes& palettes) const {
    const std::uint32_t index = strip(i % kRowTiles);
    const bool last = kRowTiles == 1 || i == 1;
    if constexpr (Config::kRaw) {
      // Outside the matrix both give zeros.
      Fragments fragments;
      if (params.raw_by_tensor_copy) {
        const std::uint32_t at = Map::kWeights + slot * Traits::kWeightBytes + index * kRawTileBytes;
        fragments = load_raw(base + at, lane);
      } else {
        const Segment now = schedule.segment(n);
        const std::uint32_t column = (now.end - left) * Traits::kStageColumns + i / kRowTiles;
        fragments = fetch_raw(params, this->locate(now.item).first_strip + index, column, lane);
      }
      if (last) this->arrive_once(fragments.loaded(), this->empty(slot));
      return fragments;
    } else {
      const device::TileParts parts = decode(slot, index, palettes);
      if (last) this->arrive_once(parts.loaded() ^ parts.rotated[0] ^ parts.rotated[4], this->empty(slot));
      return parts.join();
    }
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
    RingPlace place;
        if (group() == 1) pass_turn();
    for (std::uint32_t n = 0; schedule.segment(n).exists(); ++n) {
      ptx::barrier_wait(this->full(place.slot), place.parity);
      device::LanePalettes palettes[kRowTiles];
      UNWEIGHT_UNROLL
      for (std::uint32_t r = 0; r < kRowTiles; ++r) palettes[r] = look_up_palettes(place.slot, r);
      const Segment now = schedule.segment(n);
      std::uint32_t left = now.end - now.begin;
      Fragments fragments[2]{};
      bool first = true;
      UNWEIGHT_NO_UNROLL
      do {
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < 2; ++i) {
          const bool begins_column = kRowTiles == 1 || i == 0, ends_column = kRowTiles == 1 || i == 1;
          if (begins_column) ptx::barrier_wait(this->full(place.slot), place.parity);
          fragments[i] = fetch(i, place.slot, n, left, palettes[i % kRowTiles]);
          if (begins_column) ptx::barrier_wait(this->x_full(place.slot), place.parity);
          take_turn();
          begin_product(fragments[i], place.slot, sums_of(sums, i % kRowTiles));
          pass_turn();
          if constexpr (Config::kRaw) {
            // Raw tiles come by ldmatrix, in flight too: ptxas would let it write what the product reads.
            ptx::wgmma_wait(sums);
            if (ends_column) this->release_x(place.slot);
          } else {
            // The product before has ended; this one runs while the next tile is decoded.
            ptx::wgmma_wait_for_all_but_one();
            hold(fragments[i ^ 1]);
            if (begins_column) this->release_x(place.previous(Traits::kSlots), !first);
            first = false;
          }
          if (ends_column) place.advance(1, Traits::kSlots);
        }
      } while (--left != 0);
      if constexpr (!Config::kRaw) {
        ptx::wgmma_wait(sums);
        UNWEIGHT_UNROLL
        for (const Fragments& f : fragments) hold(f);
        this->release_x(place.previous(Traits::kSlots));
      }
      LargeBatchSums<Config>{*this}.store(schedule.segment(n), sums);
    }
    if (group() == 0) take_turn();  // the other's last
  }
};

}  // namespace unweight::sm90
