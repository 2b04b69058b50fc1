// SPDX-License-Identifier: Apache-2.0
//
// The warps of kernels/sm90_large_batch.cuh that do not multiply: one requests tiles and X, three prepare exceptions.
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

/// Strips of a block whose exceptions one of three warps prepares.
template <class Config>
struct PatcherStrips {
  using Traits = LargeBatchTraits<Config>;
  static constexpr std::uint32_t kMost = (Config::kStrips + Traits::kPatchers - 1) / Traits::kPatchers;
  std::uint32_t first, count;

  explicit __device__ PatcherStrips(std::uint32_t patcher)
      : first(patcher * Config::kStrips / Traits::kPatchers),
        count((patcher + 1) * Config::kStrips / Traits::kPatchers - first) {}
};

/// Brings the exceptions of a patcher's strips to shared memory. Where they lie is a table in global memory: two
/// latencies, so a *chunk* of neighbouring columns is asked for two chunks ahead. A lane has the list of one tile, strip
/// by strip.
template <class Config>
struct LargeBatchLists : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Strips = PatcherStrips<Config>;
  using Block::params, Block::lane;
  static constexpr std::uint32_t kChunkColumns = Traits::kChunkColumns;
  static_assert(Strips::kMost * kChunkColumns <= device::kLanes && Traits::kChunkBytes <= 16 * device::kLanes);

  Strips strips;
  Columns asked;              ///< where the chunk begins that `coming` is of
  std::uint32_t origin = 0;  ///< the patcher's first strip there
  /// Of the lane's tile and the one after it, on their way from memory: an addition would wait for them.
  struct Starts {
    std::uint32_t segment[2], tile[2];
    bool exists;
  } coming{};
  device::ExceptionList following{};  ///< the lane's list of the chunk that is on its way
  device::ExceptionList present{};    ///< and of this one
  std::uint32_t buffer = 0;           ///< of two, where the following chunk goes

  __device__ LargeBatchLists(const Block& block, const Strips& strips_in, const Columns& first)
      : Block(block), strips(strips_in), asked(first) {}

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
    if (asked.begins_segment()) origin = this->locate(asked.segment.item).first_strip + strips.first;
    const std::uint32_t own = lane / kChunkColumns, strip = origin + own;
    const std::uint32_t column = asked.column + lane % kChunkColumns;
    if (own >= strips.count || strip >= params.strips) return;
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
    std::uint32_t place = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < Strips::kMost; ++s) {
      const std::uint32_t first = __shfl_sync(device::kAllLanes, begin, s * kChunkColumns);
      const std::uint32_t last = __shfl_sync(device::kAllLanes, end, (s + 1) * kChunkColumns - 1);
      const std::uint32_t aligned = first / kVectorUnits * kVectorUnits;
      const std::uint32_t vectors = (last - aligned + kVectorUnits - 1) / kVectorUnits;
      const std::uint32_t to = Map::kUnits + (2 * (strips.first + s) + buffer) * Traits::kChunkBytes;
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

/// Prepares the exceptions of some of the strips. One of three warps.
template <class Config>
struct LargeBatchPatcher : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Columns = LargeBatchColumns<Config>;
  using Strips = PatcherStrips<Config>;
  using Block::params, Block::lane, Block::shared;
  static constexpr std::uint32_t kMost = Strips::kMost;
  static constexpr std::uint32_t kRowTurns = (kMost * format::kTileRows + device::kLanes - 1) / device::kLanes;

  Strips strips;
  LargeBatchLists<Config> lists;
  std::uint32_t row_palettes = 0;  ///< of rows lane, lane + 32, .. of the strips, a byte each

  __device__ LargeBatchPatcher(const Block& block, std::uint32_t number)
      : Block(block), strips(number), lists(block, strips, Columns(Schedule(params.deal, Block::pair()))) {}

  /// A tile's exceptions, before there is a slot for them.
  struct Tile {
    device::PatchEntry entry;
    std::uint32_t packed;  ///< of its list; 0: usual
  };
  /// As many as there are registers for; the others are prepared when there is a slot.
  static constexpr std::uint32_t kEarly = 3;

  /// @param s         of the strips
  /// @param in_chunk  the column's number in its chunk
  __device__ Tile prepare(std::uint32_t s, std::uint32_t in_chunk) const {
    const std::uint32_t from = s * Traits::kChunkColumns + in_chunk;
    const device::ExceptionList list{0, __shfl_sync(device::kAllLanes, lists.present.packed, from)};
    const std::uint32_t units = list.is_unusual() ? 0 : list.usual_count();
    // Also where there is none: any place in shared memory will do.
    const std::uint32_t unit = reinterpret_cast<const std::uint16_t*>(shared + list.place())[lane];
    bool unusual = false;
    Tile tile;
    tile.entry = device::make_patch_entry(unit, units, lane, params.exception_base, unusual);
    tile.packed = unusual || list.is_unusual() ? list.packed : 0;
    return tile;
  }

  /// Fills the patches of the strips in a slot, and arrives.
  __device__ void store(const Tile (&early)[kEarly], std::uint32_t in_chunk, bool begins_segment,
                        std::uint32_t slot) const {
    const std::uint32_t first = slot * Config::kStrips + strips.first;
    auto* patches = reinterpret_cast<device::TilePatch*>(shared + Map::kPatches) + first;
    auto* tile_lists = reinterpret_cast<device::ExceptionList*>(shared + Map::kLists) + first;
    auto* nowhere = reinterpret_cast<std::uint8_t*>(shared + Map::kNowhere);
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kMost; ++s) {
      if (s < strips.count) patches[s].clear(lane);
    }
    __syncwarp();
    std::uint32_t packed[kMost], unusual = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kMost; ++s) {
      const Tile tile = s < kEarly ? early[s % kEarly] : prepare(s, in_chunk);
      packed[s] = tile.packed;
      if (s >= strips.count) continue;
      tile.entry.write(patches[s], nowhere);
      if (lane == 0) tile_lists[s].packed = tile.packed;
      unusual |= tile.packed;
    }
    if (__builtin_expect(unusual != 0, 0)) store_unusual(packed, in_chunk, patches, tile_lists);
    if (begins_segment) {
      std::byte* rows = shared + Map::kRows + slot * Traits::kRowBytes + strips.first * format::kTileRows;
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kRowTurns; ++i) {
        const std::uint32_t row = i * device::kLanes + lane;
        if (row < strips.count * format::kTileRows) rows[row] = static_cast<std::byte>(row_palettes >> 8 * i & 0xff);
      }
    }
    this->arrive(this->full(slot));
  }

  /// Lists that whoever decodes the tile reads itself, from global memory; and tiles outside the matrix, whose exponents
  /// are made 0, as sign and mantissa are.
  __device__ void store_unusual(const std::uint32_t (&packed)[kMost], std::uint32_t in_chunk,
                                device::TilePatch* patches, device::ExceptionList* tile_lists) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < kMost; ++s) {
      const device::ExceptionList list{
          __shfl_sync(device::kAllLanes, lists.present.begin, s * Traits::kChunkColumns + in_chunk), packed[s]};
      if (s >= strips.count || list.packed == 0) continue;
      if (list.is_absent()) patches[s].erase(lane);
      if (lane == 0) {
        tile_lists[s] = list.is_absent() ? device::ExceptionList{} : device::ExceptionList::make(list.begin, list.count(), 0);
      }
    }
  }

  __device__ void ask_palettes(std::uint32_t first_strip) {
    const std::uint32_t first_row = (first_strip + strips.first) * format::kTileRows;
    row_palettes = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kRowTurns; ++i) {
      const std::uint32_t row = i * device::kLanes + lane;
      if (row < strips.count * format::kTileRows && first_row + row < params.strips * format::kTileRows) {
        row_palettes |= std::uint32_t{params.row_palettes[first_row + row]} << 8 * i;
      }
    }
  }

  /// Before the block's threads meet.
  __device__ void begin_work() {
    if constexpr (!Config::kRaw) lists.begin(Schedule(params.deal, Block::pair()));  // the shared one is not there yet
  }

  __device__ void run() {
    if constexpr (!Config::kRaw) {
      RingPlace place{0, 1};
      for (std::uint32_t n = 0;; ++n) {
        const Segment segment = this->schedule.segment(n);
        if (!segment.exists()) break;
        ask_palettes(this->locate(segment.item).first_strip);
        const std::uint32_t columns = (segment.end - segment.begin) * Traits::kStageColumns;
        std::uint32_t in_chunk = Traits::kChunkColumns;
        UNWEIGHT_NO_UNROLL
        for (std::uint32_t column = 0; column < columns; ++column, ++in_chunk) {
          if (in_chunk == Traits::kChunkColumns) {
            in_chunk = 0;
            lists.advance(this->schedule);
          }
          Tile early[kEarly];
          UNWEIGHT_UNROLL
          for (std::uint32_t s = 0; s < kEarly; ++s) early[s] = prepare(s, in_chunk);
          ptx::barrier_wait(this->empty(place.slot), place.parity);
          store(early, in_chunk, column == 0, place.slot);
          place.advance(1, Traits::kSlots);
        }
      }
      ptx::wait_for_async_copies();
    }
  }
};

/// Requests tiles and X. One warp, that does nothing else: who waits for X waits for the other block of the pair.
template <class Config>
struct LargeBatchRequester : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Block::params, Block::lane, Block::base, Block::shared;

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

  /// Columns of W that are requested before the block's threads have met.
  [[nodiscard]] __device__ std::uint32_t columns_requested_first() const {
    const Segment first = Schedule::first_segment(params.deal, Block::pair());
    return min(Traits::kSlots, (first.end - first.begin) * Traits::kStageColumns);
  }

  /// Before the block's threads meet.
  __device__ void begin_work() const {
    if (lane == 0) {
      this->init_barriers();
      const Segment first = Schedule::first_segment(params.deal, Block::pair());
      const std::uint32_t strip = this->locate(first.item).first_strip;
      for (std::uint32_t i = 0; i < columns_requested_first(); ++i) {
        request_weights(strip, first.begin * Traits::kStageColumns + i, i);
      }
    }
    __syncwarp();
  }

  __device__ void run() const {
    ptx::wait_for_previous_grids();
    const std::uint32_t requested = columns_requested_first();
    RingPlace place{0, 1};
    std::uint32_t count = 0;
    for (std::uint32_t n = 0;; ++n) {
      const Segment segment = this->schedule.segment(n);
      if (!segment.exists()) break;
      const auto item = this->locate(segment.item);
      const std::uint32_t begin = segment.begin * Traits::kStageColumns, end = segment.end * Traits::kStageColumns;
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t column = begin; column < end; ++column, ++count) {
        ptx::barrier_wait(this->empty(place.slot), place.parity);
        if (lane == 0 && count >= requested) request_weights(item.first_strip, column, place.slot);
        ptx::barrier_wait(this->x_empty(place.slot), place.parity);
        request_x(item.first_token, column, place.slot);
        __syncwarp();  // lanes that were left behind could miss a phase, and would wait for ever
        place.advance(1, Traits::kSlots);
      }
    }
  }
};

}  // namespace unweight::sm90
