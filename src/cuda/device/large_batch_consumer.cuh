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

  /// A tile on its way from shared memory, asked for while the product before it begins: a warp that has begun one waits
  /// long for what it asks for then.
  struct Asked {
    uint4 sign_mantissa[2];
    std::uint32_t codes[3];
    device::LanePatch patch;
    std::uint32_t list;  ///< ExceptionList::packed; 0: usual
  };

  [[nodiscard]] static __device__ std::uint32_t tile_at(std::uint32_t slot, std::uint32_t index) {
    return Map::kWeights + slot * Traits::kWeightBytes + index * Traits::kTileStride;
  }
  [[nodiscard]] static __device__ std::uint32_t list_at(std::uint32_t slot, std::uint32_t index) {
    return Map::kLists + (slot * Config::kStrips + index) * static_cast<std::uint32_t>(sizeof(device::ExceptionList));
  }

  /// @param index  of the tile in its slot
  /// @param exists  otherwise anything, which is not used
  __device__ Asked ask(std::uint32_t slot, std::uint32_t index, bool exists) const {
    const std::uint32_t patch_at =
        Map::kPatches + (slot * Config::kStrips + index) * static_cast<std::uint32_t>(sizeof(device::TilePatch));
    // Palettes are never written again, and are as large as a tile.
    static_assert(format::kMaxPalettes * format::kPaletteSize >= format::kTileBytes);
    const std::byte* tile = shared + (exists ? tile_at(slot, index) : Map::kPalettes);
    const std::byte* patch = shared + (exists ? patch_at : Map::kPalettes);
    const std::byte* list = shared + (exists ? list_at(slot, index) : Map::kPalettes);
    Asked asked;
    const uint2 codes01 = *reinterpret_cast<const uint2*>(tile + format::kCodes01Offset + 8 * lane);
    asked.codes[0] = codes01.x, asked.codes[1] = codes01.y;
    asked.codes[2] = *reinterpret_cast<const std::uint32_t*>(tile + format::kCodes2Offset + 4 * lane);
    asked.patch = device::LanePatch::of(*reinterpret_cast<const device::TilePatch*>(patch), lane);
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 2; ++i) {
      asked.sign_mantissa[i] = *reinterpret_cast<const uint4*>(tile + 16 * (i * device::kLanes + lane));
    }
    asked.list = reinterpret_cast<const device::ExceptionList*>(list)->packed;
    return asked;
  }

  /// The tile that has been asked for, as it lies in its slot still.
  __device__ device::TileParts decode(const Asked& asked, std::uint32_t slot, std::uint32_t index,
                                      const device::LanePalettes& palettes) const {
    const device::LaneSelectors selectors = device::unpack_selectors(asked.codes);
    const uint4 &low = asked.sign_mantissa[0], &high = asked.sign_mantissa[1];
    device::TileParts parts{{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, {}};
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < device::kLaneGroups; ++g) {
      parts.rotated[g] = asked.patch.apply(device::look_up_group(palettes, selectors, g), g);
    }
    if (__builtin_expect(asked.list != 0, 0)) {
      UNWEIGHT_UNROLL
      for (std::uint32_t g = 0; g < device::kLaneGroups; ++g) {
        parts.rotated[g] = device::look_up_group(palettes, selectors, g);
      }
      // Where sign and mantissa were: every lane has loaded its own, and nobody else needs them.
      auto* plane = reinterpret_cast<std::uint8_t*>(shared + tile_at(slot, index));
      device::FragmentDecoder{shared, params.exceptions, plane, lane, 16 * lane, params.exception_base}.put_list(
          *reinterpret_cast<const device::ExceptionList*>(shared + list_at(slot, index)), parts.rotated);
      ptx::fence_async_proxy();  // before the next column's copy
    }
    return parts;
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
    RingPlace place;
    if (group() == 1) pass_turn();
    for (std::uint32_t n = 0; schedule.segment(n).exists(); ++n) {
      if constexpr (Config::kRaw) {
        multiply_raw(schedule.segment(n), place, sums);
      } else {
        multiply_tiled(schedule.segment(n), place, sums);
      }
      LargeBatchSums<Config>{*this}.store(schedule.segment(n), sums);
    }
    if (group() == 0) take_turn();  // the other's last
  }

 private:
  static UNWEIGHT_HOST_DEVICE constexpr bool begins_column(std::uint32_t i) { return kRowTiles == 1 || i == 0; }
  static UNWEIGHT_HOST_DEVICE constexpr bool ends_column(std::uint32_t i) { return kRowTiles == 1 || i == 1; }

  __device__ void multiply_tiled(const Segment& now, RingPlace& place, Sums& sums) const {
    Fragments fragments[2]{};
    ptx::barrier_wait(this->full(place.slot), place.parity);
    device::LanePalettes palettes[kRowTiles];
    UNWEIGHT_UNROLL
    for (std::uint32_t r = 0; r < kRowTiles; ++r) palettes[r] = look_up_palettes(place.slot, r);
    Asked asked = ask(place.slot, strip(0), true);
    bool first = true;
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t left = now.end - now.begin; left != 0; --left) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 2; ++i) {
        const bool last = i == 1 && left == 1;
        const std::uint32_t slot = place.slot, index = strip(i % kRowTiles);
        const std::uint32_t x_full = this->x_full(slot), x_parity = place.parity;
        if (ends_column(i)) place.advance(1, Traits::kSlots);
        if (kRowTiles == 1) {
          ptx::barrier_wait(x_full, x_parity, last ? x_full : this->full(place.slot), last ? x_parity : place.parity);
        } else if (i == 0) {
          ptx::barrier_wait(x_full, x_parity);
        } else if (!last) {
          ptx::barrier_wait(this->full(place.slot), place.parity);
        }
        const device::TileParts parts = decode(asked, slot, index, palettes[i % kRowTiles]);
        asked = ask(place.slot, strip((i + 1) % kRowTiles), !last);
        if (ends_column(i)) {
          this->arrive_once(parts.loaded() ^ parts.rotated[0] ^ parts.rotated[4], this->empty(slot));
        }
        fragments[i] = parts.join();
        take_turn();
        begin_product(fragments[i], slot, sums_of(sums, i % kRowTiles));
        pass_turn();
        // The product before has ended; this one runs while the next tile is decoded.
        ptx::wgmma_wait_for_all_but_one();
        hold(fragments[i ^ 1]);
        if (begins_column(i)) {
          this->release_x(RingPlace{slot, 0}.previous(Traits::kSlots), !first);
        }
        first = false;
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
