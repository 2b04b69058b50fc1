// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_large_batch.cuh that do not multiply: they request tiles and X, and prepare exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/activation_tiles.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/device/tile_patch.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Brings the exceptions of a helper's strips to shared memory. Where they lie is a table in global memory: two
/// latencies, so a *chunk* of neighbouring columns is asked for two chunks ahead. A lane has the list of one tile, strip
/// by strip.
template <class Config>
struct LargeBatchLists : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Block::params, Block::lane;
  static constexpr std::uint32_t kStrips = Traits::kHelperStrips, kChunkColumns = Traits::kChunkColumns;
  static_assert(kStrips * kChunkColumns <= device::kLanes && Traits::kChunkBytes <= 16 * device::kLanes);

  std::uint32_t number;  ///< of the helper
  Columns asked;         ///< where the chunk begins that `coming` is of
  std::uint32_t first_strip = 0;  ///< of the helper, there
  /// Of the lane's tile and the one after it, on their way from memory: an addition would wait for them.
  struct Starts {
    std::uint32_t segment[2], tile[2];
    bool exists;
  } coming{};
  device::ExceptionList following{};  ///< the lane's list of the chunk that is on its way
  device::ExceptionList present{};    ///< and of this one
  std::uint32_t buffer = 0;           ///< of two, where the following chunk goes

  __device__ LargeBatchLists(const Block& block, std::uint32_t helper, const Columns& first)
      : Block(block), number(helper), asked(first) {}

  __device__ void begin(const Schedule& whole) {
    ask();
    request(whole);
  }

  /// To the next chunk.
  __device__ void advance(const Schedule& whole) {
    ptx::wait_for_async_copies();
    __syncwarp();
    present = following;
    request(whole);
  }

 private:
  __device__ void ask() {
    coming = {};
    if (!asked.exists()) return;
    if (asked.begins_segment()) first_strip = this->locate(asked.segment.item).first_strip + number * kStrips;
    const std::uint32_t strip = first_strip + lane / kChunkColumns;
    const std::uint32_t column = asked.column + lane % kChunkColumns;
    if (lane >= kStrips * kChunkColumns || strip >= params.strips) return;
    coming.exists = column < params.tiles_per_strip;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t tile =
          params.first_tile + strip * params.tiles_per_strip + min(column + i, params.tiles_per_strip);
      coming.segment[i] = params.segment_starts[tile / format::kTilesPerSegment];
      coming.tile[i] = params.tile_starts[tile];
    }
  }

  /// Copies the chunk whose starts have come, and asks for those of the one after it.
  __device__ void request(const Schedule& whole) {
    constexpr std::uint32_t kVectorUnits = 8;  // 16 bytes
    const std::uint32_t begin = coming.segment[0] + coming.tile[0], end = coming.segment[1] + coming.tile[1];
    const std::uint32_t room = Map::kUnits + (2 * number + buffer) * kStrips * Traits::kChunkBytes;
    std::uint32_t place = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kStrips; ++s) {
      const std::uint32_t first = __shfl_sync(device::kAllLanes, begin, s * kChunkColumns);
      const std::uint32_t last = __shfl_sync(device::kAllLanes, end, (s + 1) * kChunkColumns - 1);
      const std::uint32_t aligned = first / kVectorUnits * kVectorUnits;
      const std::uint32_t vectors = (last - aligned + kVectorUnits - 1) / kVectorUnits;
      const std::uint32_t to = room + s * Traits::kChunkBytes;
      if (16 * vectors > Traits::kChunkBytes) continue;  // read from global memory, by those who need them
      if (lane < vectors) {
        ptx::copy_async16(this->base + to + 16 * lane, params.exceptions + aligned + std::uint64_t{kVectorUnits} * lane);
      }
      if (lane / kChunkColumns == s) place = to + 2 * (begin - aligned);
    }
    following = coming.exists ? device::ExceptionList::make(begin, end - begin, place) : device::ExceptionList::absent();
    buffer ^= 1;
    asked.advance(whole, kChunkColumns);
    ask();
  }
};

/// One of four warps. Each prepares the exceptions of a quarter of the strips; the first also requests tiles, the second
/// X, since those wait for different things.
template <class Config>
struct LargeBatchHelper : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Lists = LargeBatchLists<Config>;
  using Block::params, Block::lane, Block::base, Block::shared;
  static constexpr std::uint32_t kTilesOfWeights = 0, kTilesOfX = 1;  ///< numbers of the warps that request
  static constexpr std::uint32_t kStrips = Traits::kHelperStrips;

  std::uint32_t number;
  Lists lists;
  std::uint32_t row_palettes = 0;  ///< of rows lane, lane + 32, .. of the helper's strips, a byte each

  __device__ LargeBatchHelper(const Block& block, std::uint32_t number_in)
      : Block(block), number(number_in), lists(block, number_in, Columns(Schedule(params.deal, Block::pair()))) {}

  // ---- exceptions ---------------------------------------------------------------------------------------------------

  /// A column's, before there is a slot for them.
  struct Column {
    device::PatchEntry entries[kStrips];
    std::uint32_t packed[kStrips];  ///< of the lists; 0: usual
  };

  /// @param in_chunk  the column's number in its chunk
  __device__ Column prepare(std::uint32_t in_chunk) const {
    Column column;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kStrips; ++s) {
      const std::uint32_t from = s * Traits::kChunkColumns + in_chunk;
      const device::ExceptionList list{0, __shfl_sync(device::kAllLanes, lists.present.packed, from)};
      const std::uint32_t units = list.is_unusual() ? 0 : list.usual_count();
      std::uint32_t unit = 0;
      if (lane < units) unit = reinterpret_cast<const std::uint16_t*>(shared + list.place())[lane];
      bool unusual = false;
      column.entries[s] = device::make_patch_entry(unit, units, lane, params.exception_base, unusual);
      column.packed[s] = unusual || list.is_unusual() ? list.packed : 0;
    }
    return column;
  }

  /// Fills the patches of the helper's tiles in a slot, and arrives.
  __device__ void store(const Column& column, std::uint32_t in_chunk, bool begins_segment, std::uint32_t slot) const {
    const std::uint32_t first = slot * Config::kStrips + number * kStrips;
    auto* patches = reinterpret_cast<device::TilePatch*>(shared + Map::kPatches) + first;
    auto* tile_lists = reinterpret_cast<device::ExceptionList*>(shared + Map::kLists) + first;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kStrips; ++s) {
      patches[s].selectors[lane] =
          make_uint4(device::kNoException, device::kNoException, device::kNoException, device::kNoException);
      if (lane == 0) tile_lists[s].packed = column.packed[s];
    }
    __syncwarp();
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kStrips; ++s) {
      column.entries[s].write(patches[s]);
      if (column.packed[s] != 0) store_unusual(column.packed[s], s, in_chunk, patches[s], tile_lists[s]);
    }
    if (begins_segment) {
      std::byte* rows = shared + Map::kRows + slot * Traits::kRowBytes + number * kStrips * format::kTileRows;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kStrips / 2; ++i) {
        rows[i * device::kLanes + lane] = static_cast<std::byte>(row_palettes >> 8 * i & 0xff);
      }
    }
    this->arrive(this->full(slot));
  }

  /// A list that whoever decodes the tile reads itself, from global memory; or a tile outside the matrix, whose exponents
  /// are made 0, as sign and mantissa are.
  __device__ void store_unusual(std::uint32_t packed, std::uint32_t strip, std::uint32_t in_chunk,
                                device::TilePatch& patch, device::ExceptionList& list) const {
    const device::ExceptionList found{
        __shfl_sync(device::kAllLanes, lists.present.begin, strip * Traits::kChunkColumns + in_chunk), packed};
    if (found.is_absent()) {
      patch.selectors[lane] = make_uint4(device::kAllFirstException, device::kAllFirstException,
                                         device::kAllFirstException, device::kAllFirstException);
      patch.exceptions[lane] = make_uint2(0, 0);
    }
    if (lane == 0) {
      list = found.is_absent() ? device::ExceptionList{} : device::ExceptionList::make(found.begin, found.count(), 0);
    }
  }

  __device__ void ask_palettes(std::uint32_t first_strip) {
    const std::uint32_t first_row = (first_strip + number * kStrips) * format::kTileRows;
    row_palettes = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kStrips / 2; ++i) {
      const std::uint32_t row = first_row + i * device::kLanes + lane;
      if (row < params.strips * format::kTileRows) row_palettes |= std::uint32_t{params.row_palettes[row]} << 8 * i;
    }
  }

  // ---- requests -----------------------------------------------------------------------------------------------------

  /// By one lane: tiles of a column.
  __device__ void request_weights(std::uint32_t first_strip, std::uint32_t column, std::uint32_t slot) const {
    const std::uint32_t barrier = this->full(slot), to = base + Map::kWeights + slot * Traits::kWeightBytes;
    const bool by_tensor_copy = !Config::kRaw || params.raw_by_tensor_copy;
    ptx::barrier_arrive_expect(barrier, by_tensor_copy ? Traits::kWeightBytes : 0);
    if constexpr (!Config::kRaw) {
      ptx::tile_copy(to, &this->w_map, column, first_strip, barrier, ptx::evict_first_policy());
    } else if (by_tensor_copy) {
      ptx::tensor_copy(to, &this->w_map, first_strip * format::kTileRows, column, barrier);
    }
  }

  /// By the warp: X of a column, for both blocks of the pair this one's half of the tokens.
  __device__ void request_x(std::uint32_t first_token, std::uint32_t column, std::uint32_t slot) const {
    const std::uint32_t barrier = this->x_full(slot);
    std::uint32_t to = Map::kX + slot * Traits::kXBytes;
    if (!params.x_by_tensor_copy) {
      store_x_tiles(params, shared + to, {first_token, Traits::kTokens}, column, 1, lane);
      ptx::fence_async_proxy();
      this->arrive(barrier);
    } else if (lane == 0) {
      constexpr std::uint32_t kShare = Traits::kTokens / Traits::kSharers;
      const std::uint32_t first = this->sharer() * kShare;
      to += base + first * 2 * format::kTileCols;
      ptx::barrier_arrive_expect(barrier, Traits::kXBytes);
      ptx::tensor_copy_to_blocks(to, &this->x_map, first_token + first, column, barrier,
                                 3U << this->first_rank(this->part));
    }
  }

  // ---- the warp's work ----------------------------------------------------------------------------------------------

  /// Columns of W that are requested before the block's threads have met.
  [[nodiscard]] __device__ std::uint32_t columns_requested_first() const {
    const Segment first = Schedule::first_segment(params.deal, Block::pair());
    return min(Traits::kSlots, (first.end - first.begin) * Traits::kStageColumns);
  }

  /// Before the block's threads meet.
  __device__ void begin_work() {
    if (number == kTilesOfWeights && lane == 0) {
      this->init_barriers();
      const Segment first = Schedule::first_segment(params.deal, Block::pair());
      const std::uint32_t strip = this->locate(first.item).first_strip;
      for (std::uint32_t i = 0; i < columns_requested_first(); ++i) {
        request_weights(strip, first.begin * Traits::kStageColumns + i, i);
      }
    }
    __syncwarp();
    if constexpr (!Config::kRaw) lists.begin(Schedule(params.deal, Block::pair()));  // the shared one is not there yet
  }

  __device__ void run() {
    if (Config::kRaw && number > kTilesOfX) return;
    if (number == kTilesOfX) ptx::wait_for_previous_grids();
    const std::uint32_t requested = columns_requested_first();
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    for (std::uint32_t n = 0;; ++n) {
      const Segment segment = this->schedule.segment(n);
      if (!segment.exists()) break;
      const auto item = this->locate(segment.item);
      if constexpr (!Config::kRaw) ask_palettes(item.first_strip);
      const std::uint32_t begin = segment.begin * Traits::kStageColumns, end = segment.end * Traits::kStageColumns;
      std::uint32_t in_chunk = Traits::kChunkColumns - 1;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t column = begin; column < end; ++column, ++count) {
        [[maybe_unused]] Column prepared;
        if constexpr (!Config::kRaw) {
          if (++in_chunk == Traits::kChunkColumns || column == begin) {
            in_chunk = 0;
            lists.advance(this->schedule);
          }
          prepared = prepare(in_chunk);
        }
        // Not by one that does not arrive there: while it is late two phases could pass, and it would wait for ever.
        if (!Config::kRaw || number == kTilesOfWeights) ptx::barrier_wait(this->empty(place.slot), place.parity);
        if (number == kTilesOfWeights && lane == 0 && count >= requested) {
          request_weights(item.first_strip, column, place.slot);
        }
        if constexpr (!Config::kRaw) store(prepared, in_chunk, column == begin, place.slot);
        if (number == kTilesOfX) {
          ptx::barrier_wait(this->x_empty(place.slot), place.parity);
          request_x(item.first_token, column, place.slot);
        }
        place.advance(1, Traits::kSlots);
      }
    }
    if constexpr (!Config::kRaw) ptx::wait_for_async_copies();
  }
};

}  // namespace unweight::sm90
