// SPDX-License-Identifier: Apache-2.0
//
// What the producer and the consumers of kernels/sm90_small_batch.cuh share: parameters, sizes, and the layout of
// shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/matmul_operands.cuh>
#include <cuda/device/raw_fragments.cuh>
#include <cuda/device/ring.cuh>
#include <cuda/device/schedule.cuh>
#include <cuda/device/strip_output.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/layout.hpp>
#include <vector_types.h>

namespace unweight::sm90 {

/// Slots of the ring at most.
inline constexpr std::uint32_t kMaxStages = 8;

/// Tiles of a stage, which is how many warps decode and multiply: 16, but for items of 12 strips, whose warps have more
/// registers, for the sums of more tokens.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t stage_tiles(std::uint32_t strips) { return strips == 12 ? 12 : 16; }

/// Compile-time part of a configuration.
template <std::uint32_t Strips, std::uint32_t TokenTiles, bool Raw, bool Warpgroup = false>
struct SmallBatchConfig {
  static constexpr std::uint32_t kStrips = Strips;          ///< strips of 16 rows in an item: 1, 2, 4, 8, 12 or 16
  static constexpr std::uint32_t kTokenTiles = TokenTiles;  ///< tiles of 8 tokens in an item: 1, 2, 4, 8 or 16
  static constexpr bool kRaw = Raw;                         ///< W is not compressed
  static constexpr bool kWarpgroup = Warpgroup;             ///< four warps multiply together
};

struct SmallBatchParams : MatmulOperands {
  std::uint32_t stages;  ///< slots of the ring, up to kMaxStages
  /// Of a tile of X in shared memory: whole groups of 8 tokens. A tensor copy takes its time for tokens outside X, too;
  /// what lies where a kernel expects more of them becomes sums that nobody stores.
  std::uint32_t x_tile_rows;

  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t x_tile_bytes() const { return 2 * format::kTileCols * x_tile_rows; }
};

template <class Config>
struct SmallBatchTraits {
  static constexpr std::uint32_t kStageTiles = stage_tiles(Config::kStrips);
  static constexpr std::uint32_t kConsumers = kStageTiles;  ///< warps that decode and multiply, a tile of a stage each
  static constexpr std::uint32_t kConsumerThreads = kConsumers * device::kLanes;
  /// For many tokens X has a ring of its own. It comes from the L2 cache and needs less time, and it is needed later
  /// and longer than the tiles, whose slots are free as soon as they are decoded.
  static constexpr bool kXApart = Config::kTokenTiles >= 4;

  // The warps after the consumers; a warpgroup, where registers are moved from it to the consumers.
  static constexpr std::uint32_t kFirstProducer = kConsumers, kProducers = 2;  ///< request all but X that is apart
  static constexpr std::uint32_t kMessenger =
      kFirstProducer + kProducers;                             ///< requests first, then talks to other blocks
  static constexpr std::uint32_t kXProducer = kMessenger + 1;  ///< requests X where it is apart
  static constexpr std::uint32_t kThreads = kConsumerThreads + (kXApart ? 4 : 3) * device::kLanes;
  /// Of a thread, when moved.
  static constexpr std::uint32_t kProducerRegisters = kConsumers == 12 ? 72 : 64,
                                 kConsumerRegisters = kConsumers == 12 ? 144 : 104;

  static constexpr std::uint32_t kColTiles = kStageTiles / Config::kStrips;  ///< tiles along K of a stage
  static constexpr std::uint32_t kStripWarps = kConsumers / Config::kStrips;
  static constexpr std::uint32_t kTokens = 8 * Config::kTokenTiles;
  static constexpr std::uint32_t kItemRows = format::kTileRows * Config::kStrips;

  // A slot of the ring.
  /// Of a warp, for what its lanes have read or written.
  static constexpr std::uint32_t kWarpArrivals = kForRacecheck ? device::kLanes : 1;
  /// Arrivals that make it full, all a producer's: a thread's, for tiles; those of exceptions' copies, and the warp's.
  static constexpr std::uint32_t kFullArrivals = Config::kRaw ? 1 : 1 + device::kLanes + kWarpArrivals;
  static constexpr std::uint32_t kEmptyArrivals = kConsumers * kWarpArrivals;
  static constexpr std::uint32_t kTileStride = Config::kRaw ? kRawTileBytes : format::kTileBytes;
  static constexpr std::uint32_t kWeightBytes = kStageTiles * kTileStride;
  /// Room for the exceptions of a strip's tiles: 64 units a tile, five times what trained weights have. Longer lists
  /// are read from global memory.
  static constexpr std::uint32_t kExceptionBytes = Config::kRaw ? 0 : 2048 / Config::kStrips / 16 * 16;
  static constexpr std::uint32_t kXTileBytes = 2 * format::kTileCols * kTokens;
  static constexpr std::uint32_t kXBytes = kColTiles * kXTileBytes;
  /// Slots of X's own ring: one in use, one needed next, one on its way; of large ones two.
  static constexpr std::uint32_t kXSlots = kXBytes > 32768 ? 2 : 3;

  /// Token tiles of a strip whose sums a warp of a warpgroup finishes, of the strip's warps each its own; and those
  /// that it writes to Y at a time.
  static constexpr std::uint32_t kShareTiles = Config::kWarpgroup ? Config::kTokenTiles / kColTiles : 0;
  static constexpr std::uint32_t kStagedTiles = kShareTiles < 4 ? kShareTiles : 4;

  /// A warp's own shared memory: the exponents of its tile. At an item's end: of a warpgroup, what the warp gives the
  /// strip's others, then Y's values on their way; otherwise a portion of its sums at a time, those of two token tiles,
  /// or of one, so that a thread has no more than four.
  static constexpr std::uint32_t kGivenBytes = (kColTiles - 1) * kShareTiles * 16 * device::kLanes;
  static constexpr std::uint32_t kWarpBytes = kGivenBytes > format::kTileValues ? kGivenBytes : format::kTileValues;
  static constexpr std::uint32_t kPortionTiles = Config::kWarpgroup || Config::kTokenTiles < 2 ? 1 : 2;
  static constexpr std::uint32_t kPortions = Config::kTokenTiles / kPortionTiles;
  static constexpr std::uint32_t kStripPortionSums = kPortionTiles * 4 * device::kLanes;
  static constexpr std::uint32_t kPortionSums = Config::kStrips * kStripPortionSums;
  static constexpr std::uint32_t kItemSums = kPortionSums * kPortions;
  static constexpr std::uint32_t kPortionBytes = kPortionSums * static_cast<std::uint32_t>(sizeof(float));

  static_assert(Config::kStrips * (kColTiles + 1) <= device::kLanes,
                "a warp's lanes hold the starts of kColTiles + 1 tiles of every strip");
  static_assert(!Config::kWarpgroup || (Config::kStrips % 4 == 0 && kXApart),
                "the warps of a warpgroup hold 16 rows each; instructions for 32 and 64 tokens are wrapped");
  static_assert(!Config::kWarpgroup ||
                    kConsumerThreads * kConsumerRegisters + 4 * device::kLanes * kProducerRegisters <=
                        65536 / kThreads / 8 * 8 * kThreads,
                "a block moves no more registers than it is launched with; consumers would wait for ever");
  static_assert(kStripPortionSums * sizeof(float) <= kWarpBytes &&
                StripOutput::staging_bytes(kStagedTiles) <= kWarpBytes);
  static_assert(kXTileBytes % 1024 == 0 && (!Config::kRaw || kWeightBytes % 1024 == 0),
                "tensor copies swizzle 1 KiB at a time");
};

/// What a producer says about a slot.
template <class Config>
struct SmallBatchStage {
  device::ExceptionList lists[stage_tiles(Config::kStrips)];       ///< in the order of the tiles in a slot
  std::uint8_t row_palettes[Config::kStrips * format::kTileRows];  ///< in a segment's first stage
};

/// Offsets in dynamic shared memory, from a base that is a multiple of 1024.
template <class Config>
struct SmallBatchMap {
  using Traits = SmallBatchTraits<Config>;
  std::uint32_t x, weights, warps, exceptions, stages, palettes, schedule, full, empty, x_full, x_empty;
  std::uint32_t all_received;  ///< a barrier of warpgroups
  std::uint32_t received, size;

  /// @param parts  blocks of a cluster that divide an item
  UNWEIGHT_HOST_DEVICE constexpr SmallBatchMap(std::uint32_t slots, std::uint32_t parts)
      : x(0),
        weights(x + (Traits::kXApart ? Traits::kXSlots : slots) * Traits::kXBytes),
        warps(weights + slots * Traits::kWeightBytes),
        exceptions(warps + Traits::kConsumers * Traits::kWarpBytes),
        stages(exceptions + slots * Config::kStrips * Traits::kExceptionBytes),
        palettes(stages + (Config::kRaw ? 0 : slots * static_cast<std::uint32_t>(sizeof(SmallBatchStage<Config>)))),
        schedule(palettes + (Config::kRaw ? 0 : format::kMaxPalettes * format::kPaletteSize)),
        full(schedule + format::align_up(static_cast<std::uint32_t>(sizeof(Schedule)), 16U)),
        empty(full + 8 * slots),
        x_full(empty + 8 * slots),
        x_empty(x_full + 8 * Traits::kXSlots),
        all_received(x_empty + 8 * Traits::kXSlots),
        received((all_received + 8 + 15) / 16 * 16),
        size(received + (parts == 1 ? 0 : received_bytes(0, parts))) {}

  /// Of the portions of sums that block `rank` of a cluster finishes: from all of the cluster, or, where warpgroups
  /// multiply, from all others.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t received_bytes(std::uint32_t rank, std::uint32_t parts) {
    const std::uint32_t mine = (Traits::kPortions - rank + parts - 1) / parts;
    return mine * (Config::kWarpgroup ? parts - 1 : parts) * Traits::kPortionBytes;
  }
  static_assert(Traits::kPortions >= Deal::kMostParts || !Config::kWarpgroup, "each of a cluster finishes some");
};

}  // namespace unweight::sm90
