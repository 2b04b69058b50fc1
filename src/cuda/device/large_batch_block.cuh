// SPDX-License-Identifier: Apache-2.0
//
// What the warps of a block of kernels/sm90_large_batch.cuh share: configuration, sizes, the layout of shared memory,
// barriers, and which part of the work is the block's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda.h>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/device/raw_fragments.cuh>
#include <cuda/device/ring.cuh>
#include <cuda/device/schedule.cuh>
#include <cuda/device/strip_output.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// What all configurations have in common, and the host deals work out by.
struct LargeBatchShape {
  static constexpr std::uint32_t kStrips = 8;  ///< strips of 16 rows that a block multiplies
  /// Blocks that get X together, a pair.
  static constexpr std::uint32_t kSharers = 2;
  /// The unit of the schedule: two tiles of a warp, which take turns with its two sets of operands.
  static constexpr std::uint32_t kStageColumns = 2;
};

/// Compile-time part of a configuration.
template <std::uint32_t Tokens, bool Raw>
struct LargeBatchConfig : LargeBatchShape {
  static constexpr std::uint32_t kTokens = Tokens;  ///< tokens that it multiplies them with: 128 or 256
  static constexpr bool kRaw = Raw;                 ///< W is not compressed
};

struct LargeBatchParams : MatmulOperands {
  std::uint32_t token_blocks;  ///< of kTokens tokens
  std::uint32_t row_items;     ///< items of a token block
};

template <class Config>
struct LargeBatchTraits {
  static constexpr std::uint32_t kConsumers = Config::kStrips;  ///< warps, a strip each; two warpgroups
  /// Warps of the last warpgroup that bring lists; the fourth requests tiles and X.
  static constexpr std::uint32_t kListers = 3;
  static constexpr std::uint32_t kConsumerThreads = kConsumers * device::kLanes;
  static constexpr std::uint32_t kHelperThreads = 4 * device::kLanes;
  static constexpr std::uint32_t kThreads = kConsumerThreads + kHelperThreads;
  static constexpr std::uint32_t kSharers = Config::kSharers;
  static constexpr std::uint32_t kTokens = Config::kTokens, kTokenTiles = kTokens / 8;
  /// Of a thread, once moved.
  static constexpr std::uint32_t kHelperRegisters = 72;
  static constexpr std::uint32_t kConsumerRegisters = 216;
  static constexpr std::uint32_t kBlockRows = Config::kStrips * format::kTileRows;
  static constexpr std::uint32_t kStageColumns = Config::kStageColumns;

  // A slot: a column of the block's tiles along K and, for longer, X of that column.
  static constexpr std::uint32_t kTileStride = Config::kRaw ? kRawTileBytes : format::kTileBytes;
  static constexpr std::uint32_t kWeightBytes = Config::kStrips * kTileStride;
  static constexpr std::uint32_t kXBytes = 2 * format::kTileCols * kTokens;
  static constexpr std::uint32_t kSlots = kTokens == 128 ? 6 : 4;

  /// Two chunks of columns: where their tiles' exceptions lie, and these themselves, with so much room for a strip.
  static constexpr std::uint32_t kChunks = 2, kChunkColumns = 8;
  static constexpr std::uint32_t kStripListBytes = kChunkColumns * 64;

  /// Of a warp, for what its lanes have read or written.
  static constexpr std::uint32_t kWarpArrivals = kForRacecheck ? device::kLanes : 1;
  static constexpr std::uint32_t kEmptyArrivals = kConsumers * kWarpArrivals;
  /// Of the listers: their lanes', when copies have come, and their warps'.
  static constexpr std::uint32_t kChunkArrivals = kListers * (device::kLanes + kWarpArrivals);

  /// Tokens whose sums are written, or sent, at a time: a group, 4 sums of 4 tiles of tokens a thread.
  static constexpr std::uint32_t kGroupTokens = 32, kGroupTiles = kGroupTokens / 8;
  static constexpr std::uint32_t kGroups = kTokens / kGroupTokens;
  static constexpr std::uint32_t kGroupSums = kConsumerThreads * 4 * kGroupTiles;
  static constexpr std::uint32_t kItemSums = kGroups * kGroupSums;
  static constexpr std::uint32_t kGroupBytes = kGroupSums * static_cast<std::uint32_t>(sizeof(float));

  /// Bytes of groups that part `rank` of an item of `parts` receives from the others.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t received_bytes(std::uint32_t rank, std::uint32_t parts) {
    const std::uint32_t mine = rank < kGroups ? (kGroups - rank + parts - 1) / parts : 0;
    return mine * (parts - 1) * kGroupBytes;
  }
  static constexpr std::uint32_t most_received_bytes() {
    std::uint32_t most = 0;
    for (std::uint32_t parts = 2; parts <= Deal::kMostParts; ++parts) {
      most = received_bytes(0, parts) > most ? received_bytes(0, parts) : most;
    }
    return most;
  }

  static_assert(kTokens == 128 || kTokens == 256, "widths of the wrapped instructions");
  static_assert(kConsumerThreads * kConsumerRegisters + kHelperThreads * kHelperRegisters <=
                    65536 / kThreads / 8 * 8 * kThreads,
                "a block moves no more registers than it is launched with; consumers would wait for ever");
  static_assert(most_received_bytes() <= kSlots * (kXBytes + kWeightBytes),
                "sums from all parts lie where X and tiles were");
};

/// What the listers say about a chunk.
template <class Config>
struct LargeBatchChunk {
  using Traits = LargeBatchTraits<Config>;
  device::ExceptionList lists[Config::kStrips][Traits::kChunkColumns];
  std::uint8_t row_palettes[Traits::kBlockRows];  ///< where a segment begins
  alignas(16) std::byte units[Config::kStrips][Traits::kStripListBytes];
};

/// Offsets in dynamic shared memory, from a base that is a multiple of 1024.
template <class Config>
struct LargeBatchMap {
  using Traits = LargeBatchTraits<Config>;
  static constexpr std::uint32_t kX = 0;
  static constexpr std::uint32_t kReceived = kX;  ///< from other parts, when the rings are not needed any more
  static constexpr std::uint32_t kWeights = kX + Traits::kSlots * Traits::kXBytes;
  /// A warp's own 1 KiB: exponents of its tile, and at an item's end a part of Y.
  static constexpr std::uint32_t kOwn = kWeights + Traits::kSlots * Traits::kWeightBytes;
  static constexpr std::uint32_t kOwnBytes = format::kTileValues;
  static constexpr std::uint32_t kChunks = kOwn + Traits::kConsumers * kOwnBytes;
  static constexpr std::uint32_t kChunkBytes = Config::kRaw ? 0 : std::uint32_t{sizeof(LargeBatchChunk<Config>)};
  static constexpr std::uint32_t kPalettes = kChunks + Traits::kChunks * kChunkBytes;
  static constexpr std::uint32_t kFull = kPalettes + (Config::kRaw ? 0 : format::kMaxPalettes * format::kPaletteSize);
  static constexpr std::uint32_t kEmpty = kFull + 8 * Traits::kSlots;
  static constexpr std::uint32_t kXFull = kEmpty + 8 * Traits::kSlots;
  static constexpr std::uint32_t kXEmpty = kXFull + 8 * Traits::kSlots;
  static constexpr std::uint32_t kChunkFull = kXEmpty + 8 * Traits::kSlots;
  static constexpr std::uint32_t kChunkEmpty = kChunkFull + 8 * Traits::kChunks;
  static constexpr std::uint32_t kAllReceived = kChunkEmpty + 8 * Traits::kChunks;
  static constexpr std::uint32_t kSchedule = kAllReceived + 8;
  static constexpr std::uint32_t kBytes = kSchedule + static_cast<std::uint32_t>(sizeof(Schedule));
  static_assert(StripOutput::staging_bytes(Traits::kGroupTiles) <= kOwnBytes);
  static_assert(kWeights % 1024 == 0 && (!Config::kRaw || Traits::kWeightBytes % 1024 == 0),
                "tensor copies swizzle 1 KiB at a time");
  static_assert(kOwn % 128 == 0 && kChunks % 16 == 0 && kChunkBytes % 16 == 0);
  static_assert(kBytes <= 232448, "what a block may use on compute capability 9.0");
};

/// Named barriers of a block; 0 is __syncthreads()'s. Of kTurn each warpgroup has one.
enum LargeBatchBarrier : std::uint32_t { kPalettesThere = 1, kTurn = 2 };

/// What the parts of a block share.
template <class Config>
struct LargeBatchBlock {
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;

  const LargeBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& w_map;
  const Schedule& schedule;
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;
  std::uint32_t part;  ///< of an item that a cluster has: the pair's number in the cluster

  [[nodiscard]] __device__ std::uint32_t full(std::uint32_t slot) const { return base + Map::kFull + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t empty(std::uint32_t slot) const { return base + Map::kEmpty + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_full(std::uint32_t slot) const { return base + Map::kXFull + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_empty(std::uint32_t slot) const { return base + Map::kXEmpty + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t chunk_full(std::uint32_t slot) const {
    return base + Map::kChunkFull + 8 * slot;
  }
  [[nodiscard]] __device__ std::uint32_t chunk_empty(std::uint32_t slot) const {
    return base + Map::kChunkEmpty + 8 * slot;
  }
  [[nodiscard]] __device__ LargeBatchChunk<Config>& chunk(std::uint32_t slot) const {
    return reinterpret_cast<LargeBatchChunk<Config>*>(shared + Map::kChunks)[slot];
  }
  /// All groups of sums that this part finishes have come.
  [[nodiscard]] __device__ std::uint32_t all_received() const { return base + Map::kAllReceived; }

  // Blocks 2 g and 2 g + 1 are pair g, which the work is dealt out to; the pairs of an item's parts are a cluster.
  [[nodiscard]] static __device__ std::uint32_t sharer() { return blockIdx.x % Traits::kSharers; }
  [[nodiscard]] static __device__ std::uint32_t pair() { return blockIdx.x / Traits::kSharers; }
  /// Rank in the cluster of a pair's first block.
  [[nodiscard]] static __device__ std::uint32_t first_rank(std::uint32_t part) { return part * Traits::kSharers; }

  /// What an item is for this block.
  struct Item {
    std::uint32_t first_strip, first_token;
  };
  static constexpr std::uint32_t kTokenBlocksAtOnce = 8;
  /// Neighbouring items have the same rows and up to kTokenBlocksAtOnce blocks of tokens, of which X stays in the L2
  /// cache while all of W passes.
  [[nodiscard]] __device__ Item locate(std::uint32_t item) const {
    const std::uint32_t band = item / (params.row_items * kTokenBlocksAtOnce);  // of tokens
    const std::uint32_t first = band * kTokenBlocksAtOnce, in_band = item - first * params.row_items;
    const std::uint32_t width = min(kTokenBlocksAtOnce, params.token_blocks - first), rows = in_band / width;
    return {(rows * Traits::kSharers + sharer()) * Config::kStrips, (first + in_band - rows * width) * Traits::kTokens};
  }

  /// By one lane, before the block's threads meet.
  __device__ void init_barriers() const {
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t slot = 0; slot < Traits::kSlots; ++slot) {
      ptx::barrier_init(full(slot), 1);
      ptx::barrier_init(empty(slot), Traits::kEmptyArrivals);
      ptx::barrier_init(x_full(slot), params.x_by_tensor_copy ? 1 : Traits::kWarpArrivals);
      ptx::barrier_init(x_empty(slot), Traits::kSharers * Traits::kEmptyArrivals);
    }
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t slot = 0; slot < Traits::kChunks; ++slot) {
      ptx::barrier_init(chunk_full(slot), Traits::kChunkArrivals);
      ptx::barrier_init(chunk_empty(slot), Traits::kEmptyArrivals);
    }
    ptx::barrier_init(all_received(), 1);
    ptx::fence_barrier_init();
    if (params.deal.by_clusters()) {
      ptx::barrier_arrive_expect(all_received(), Traits::received_bytes(part, params.deal.parts));
    }
  }

  /// By all of the cluster's threads. Orders nothing that they have written: barriers have a fence of their own.
  static __device__ void meet_cluster() {
    ptx::cluster_arrive_relaxed();
    ptx::cluster_wait();
  }

  /// By a warp: arrives at a slot's barrier, after all that its lanes have read and written there. One lane does, since
  /// an arrival is an atomic operation; racecheck follows the arriving lanes alone, so in builds for it
  /// (UNWEIGHT_RACECHECK) all do.
  __device__ void arrive(std::uint32_t barrier) const {
    __syncwarp();
    if (lane < Traits::kWarpArrivals) ptx::barrier_arrive(barrier);
  }

  /// Likewise, once what the warp has loaded from the slot has come: an arrival may overtake loads that nothing has
  /// waited for. So the barrier's address is made to depend on them.
  /// @param loaded  derived from a word of each such load
  __device__ void arrive_once(std::uint32_t loaded, std::uint32_t barrier) const {
    const std::uint32_t zero = params.palette_count >> 16;  // which the compiler does not know
    arrive(barrier + (loaded & zero));
  }

  /// By a warp whose products from a slot of X have ended: tells both blocks of the pair.
  __device__ void release_x(std::uint32_t slot, bool wanted = true) const {
    __syncwarp();
    constexpr std::uint32_t kArrivals = Traits::kSharers * Traits::kWarpArrivals;
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 0; i < kArrivals; i += device::kLanes) {
      if (lane + i < kArrivals && wanted) {
        ptx::barrier_arrive_at(x_empty(slot), first_rank(part) + (lane + i) % Traits::kSharers);
      }
    }
  }
};

/// Columns of tiles along K in the order in which a block works on them.
template <class Config>
struct LargeBatchColumns {
  using Traits = LargeBatchTraits<Config>;
  std::uint32_t n = 0;  ///< of the segment
  Segment segment;
  std::uint32_t column;

  explicit __device__ LargeBatchColumns(const Schedule& schedule)
      : segment(schedule.segment(0)), column(segment.begin * Traits::kStageColumns) {}

  [[nodiscard]] __device__ bool exists() const { return segment.exists(); }
  [[nodiscard]] __device__ std::uint32_t end() const { return segment.end * Traits::kStageColumns; }

  [[nodiscard]] __device__ bool begins_segment() const { return column == segment.begin * Traits::kStageColumns; }

  /// By columns of this segment, or to the next segment.
  __device__ void advance(const Schedule& schedule, std::uint32_t columns = 1) {
    column += columns;
    if (column < end()) return;
    segment = schedule.segment(++n);
    column = segment.begin * Traits::kStageColumns;
  }
};

}  // namespace unweight::sm90
