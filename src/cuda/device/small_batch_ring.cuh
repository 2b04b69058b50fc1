// SPDX-License-Identifier: Apache-2.0
//
// What the producer and the consumers of kernels/sm90_small_batch.cuh share: parameters, sizes, and the layout of
// shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/small_batch_schedule.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/layout.hpp>
#include <vector_types.h>

namespace unweight::sm90 {

/// Slots of the ring at most.
inline constexpr std::uint32_t kMaxStages = 8;

/// Tiles of a stage.
inline constexpr std::uint32_t kStageTiles = 16;

/// Compile-time part of a configuration.
template <std::uint32_t Strips, std::uint32_t TokenTiles, bool Raw, bool Warpgroup = false, bool ShareX = false>
struct SmallBatchConfig {
  static constexpr std::uint32_t kStrips = Strips;          ///< strips of 16 rows in an item: 1, 2, 4, 8 or 16
  static constexpr std::uint32_t kTokenTiles = TokenTiles;  ///< tiles of 8 tokens in an item: 1, 2, 4, 8, 16 or 32
  static constexpr bool kRaw = Raw;                         ///< W is not compressed
  static constexpr bool kWarpgroup = Warpgroup;             ///< four warps multiply together
  /// Clusters of two blocks, neighbours along W's rows, get X together: each copies half of it to both.
  static constexpr bool kShareX = ShareX;
  /// Tiles that a warp decodes at a time. Sums of more than 64 tokens leave registers for 8 warps, too few to hide
  /// what a tile waits for; so there are two tiles in each.
  static constexpr std::uint32_t kWarpTiles = TokenTiles <= 8 ? 1 : 2;
};

/// Where things lie. All addresses are device memory.
struct SmallBatchParams {
  const uint2* palettes;
  const std::uint8_t* row_palettes;  ///< of the matrix
  const std::uint32_t* segment_starts;
  const std::uint16_t* tile_starts;
  const std::uint16_t* exceptions;
  const std::uint16_t* raw_values;  ///< of the matrix
  const std::uint16_t* x;
  const std::uint16_t* bias;  ///< or null
  std::uint16_t* y;
  float* partial_sums;           ///< of split items: a block's Traits::kItemSums each
  std::uint32_t* partial_flags;  ///< a block's each: its partial sums are there
  std::uint64_t x_stride;        ///< in values
  std::uint64_t y_stride;
  std::uint32_t tokens;
  std::uint32_t rows;
  std::uint32_t cols;
  std::uint32_t first_tile;  ///< number of the matrix's first tile in the tables
  std::uint32_t strips;
  std::uint32_t tiles_per_strip;
  SmallBatchDeal deal;
  std::uint32_t stages;  ///< slots of the ring, up to kMaxStages
  std::uint32_t palette_count;
  std::uint8_t exception_base;
  bool dependent;           ///< launched so that it may begin before the kernel in front of it has ended
  bool x_by_tensor_copy;    ///< otherwise by the producer's ordinary loads
  bool raw_by_tensor_copy;  ///< otherwise the consumers load raw values themselves
  // For more than 64 tokens.
  bool y_by_vectors;           ///< Y and its rows are aligned to 16 bytes
  std::uint32_t token_blocks;  ///< of kTokens tokens
  std::uint32_t row_items;     ///< items of a token block
};

template <class Config>
struct SmallBatchTraits {
  static constexpr std::uint32_t kConsumers = kStageTiles / Config::kWarpTiles;  ///< warps that decode and multiply
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
  static constexpr std::uint32_t kProducerRegisters = kConsumers == 16 ? 64 : Config::kTokenTiles > 16 ? 56 : 72;
  static constexpr std::uint32_t kConsumerRegisters = kConsumers == 16 ? 104 : Config::kTokenTiles > 16 ? 224 : 216;

  static constexpr std::uint32_t kColTiles = kStageTiles / Config::kStrips;  ///< tiles along K of a stage
  static constexpr std::uint32_t kStripWarps = kConsumers / Config::kStrips;
  static constexpr std::uint32_t kTokens = 8 * Config::kTokenTiles;
  static constexpr std::uint32_t kItemRows = format::kTileRows * Config::kStrips;
  static constexpr std::uint32_t kRawTileBytes = 2 * format::kTileValues;

  // A slot of the ring.
#ifdef UNWEIGHT_RACECHECK
  static constexpr bool kForRacecheck = true;
#else
  static constexpr bool kForRacecheck = false;
#endif
  /// Of a warp, for what its lanes have read or written.
  static constexpr std::uint32_t kWarpArrivals = kForRacecheck ? device::kLanes : 1;
  /// Arrivals that make it full, all a producer's: a thread's, for tiles; those of exceptions' copies, and the warp's.
  static constexpr std::uint32_t kFullArrivals = Config::kRaw ? 1 : 1 + device::kLanes + kWarpArrivals;
  static constexpr std::uint32_t kEmptyArrivals = kConsumers * kWarpArrivals;
  static constexpr std::uint32_t kSharers = Config::kShareX ? 2 : 1;  ///< blocks that get X together
  static constexpr std::uint32_t kXEmptyArrivals = kSharers * kEmptyArrivals;
  static constexpr std::uint32_t kTileStride = Config::kRaw ? kRawTileBytes : format::kTileBytes;
  static constexpr std::uint32_t kWeightBytes = kStageTiles * kTileStride;
  /// Room for the exceptions of a strip's tiles: 64 units a tile, five times what trained weights have. Longer lists
  /// are read from global memory.
  static constexpr std::uint32_t kExceptionBytes = Config::kRaw ? 0 : 2048 / Config::kStrips / 16 * 16;
  static constexpr std::uint32_t kXTileBytes = 2 * format::kTileCols * kTokens;
  /// Tiles of X along K in a slot: a stage's, or one.
  static constexpr std::uint32_t kXTiles = kTokens > 64 ? 1 : kColTiles;
  static constexpr std::uint32_t kXBytes = kXTiles * kXTileBytes;
  /// Tokens of a copy of X: of all of a slot, or of a block's share.
  static constexpr std::uint32_t kXCopyTokens = kTokens / kSharers;
  /// Slots of X's own ring: one in use, one needed next, one on its way; of large ones two. For more than 64 tokens as
  /// many as fit.
  static constexpr std::uint32_t kXSlots = kTokens > 128 ? 4 : kTokens > 64 ? 6 : kXBytes > 32768 ? 2 : 3;

  /// A warp's own shared memory: the exponents of its tile; at an item's end, a portion of its sums at a time: those of
  /// two token tiles, or of one, so that a thread has no more than four.
  static constexpr std::uint32_t kWarpBytes = Config::kWarpTiles * format::kTileValues;
  static constexpr std::uint32_t kPortionTiles = Config::kTokenTiles < 2 || Config::kStrips == kConsumers ? 1 : 2;
  static constexpr std::uint32_t kPortions = Config::kTokenTiles / kPortionTiles;
  static constexpr std::uint32_t kStripPortionSums = kPortionTiles * 4 * device::kLanes;
  static constexpr std::uint32_t kPortionSums = Config::kStrips * kStripPortionSums;
  static constexpr std::uint32_t kItemSums = kPortionSums * kPortions;
  /// For more than 64 tokens strips have one warp each, and sums travel in groups of 32 tokens instead of portions.
  static constexpr bool kOwnSums = kTokens > 64;
  static constexpr std::uint32_t kGroups = kOwnSums ? kTokens / 32 : 1, kGroupSums = kItemRows * 32;
  /// Whether a cluster's blocks receive sums where the rings were, for which all of them must have ended their loads.
  static constexpr bool kReceivesInRings = kOwnSums;

  /// Bytes of groups that block `rank` of a cluster of `parts` receives from the others.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t received_bytes(std::uint32_t rank, std::uint32_t parts) {
    const std::uint32_t mine = rank < kGroups ? (kGroups - rank + parts - 1) / parts : 0;
    return mine * (parts - 1) * kGroupSums * static_cast<std::uint32_t>(sizeof(float));
  }
  static constexpr std::uint32_t most_received_bytes() {
    std::uint32_t most = 0;
    for (std::uint32_t parts = 2; parts <= SmallBatchDeal::kMostParts; ++parts) {
      most = received_bytes(0, parts) > most ? received_bytes(0, parts) : most;
    }
    return most;
  }

  static_assert(kColTiles % Config::kWarpTiles == 0 && Config::kStrips * (kColTiles + 1) <= device::kLanes,
                "a warp's lanes hold the starts of kColTiles + 1 tiles of every strip");
  static_assert(!Config::kWarpgroup || (Config::kStrips % 4 == 0 && kXApart),
                "the warps of a warpgroup hold 16 rows each; instructions for 32 and 64 tokens are wrapped");
  static_assert(!Config::kWarpgroup ||
                    kConsumerThreads * kConsumerRegisters + 4 * device::kLanes * kProducerRegisters <=
                        65536 / kThreads / 8 * 8 * kThreads,
                "a block moves no more registers than it is launched with; consumers would wait for ever");
  static_assert(!kReceivesInRings || most_received_bytes() <= kXSlots * kXBytes + 2 * kWeightBytes,
                "sums from all blocks lie within the rings");
  static_assert(!Config::kShareX || kXTiles == 1, "sharers copy tokens of one tile");
  static_assert(kStripPortionSums * sizeof(float) <= kWarpBytes);
  static_assert(kXTileBytes % 1024 == 0 && (!Config::kRaw || kWeightBytes % 1024 == 0),
                "tensor copies swizzle 1 KiB at a time");
};

/// A place in a ring, and the parity of a barrier there: producers begin with parity 1, since all slots are free.
struct RingPlace {
  std::uint32_t slot = 0, parity = 0;

  /// By fewer places than the ring has, or as many.
  UNWEIGHT_HOST_DEVICE void advance(std::uint32_t places, std::uint32_t slots) {
    slot += places;
    if (slot < slots) return;
    slot -= slots;
    parity ^= 1;
  }

  /// So many places before, no more than there are.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t previous(std::uint32_t slots, std::uint32_t places = 1) const {
    return (slot < places ? slot + slots : slot) - places;
  }
};

/// What a producer says about a slot.
template <class Config>
struct SmallBatchStage {
  device::ExceptionList lists[kStageTiles];                        ///< in the order of the tiles in a slot
  std::uint8_t row_palettes[Config::kStrips * format::kTileRows];  ///< in a segment's first stage
};

/// Offsets in dynamic shared memory, from a base that is a multiple of 1024.
template <class Config>
struct SmallBatchMap {
  using Traits = SmallBatchTraits<Config>;
  std::uint32_t x, weights, warps, exceptions, stages, palettes, schedule, full, empty, x_full, x_empty;
  std::uint32_t all_received;  ///< barrier, where groups of sums are received
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
        full(schedule + format::align_up(static_cast<std::uint32_t>(sizeof(SmallBatchSchedule)), 16U)),
        empty(full + 8 * slots),
        x_full(empty + 8 * slots),
        x_empty(x_full + 8 * Traits::kXSlots),
        all_received(x_empty + 8 * Traits::kXSlots),
        received(Traits::kReceivesInRings ? x : (all_received + 15) / 16 * 16),
        size(Traits::kReceivesInRings ? all_received + 8 : received + portion_bytes(parts)) {}

  /// Of the portions of sums that a block finishes, from all of a cluster.
  static UNWEIGHT_HOST_DEVICE constexpr std::uint32_t portion_bytes(std::uint32_t parts) {
    return (parts == 1 ? 0 : (Traits::kPortions + parts - 1) / parts * parts) * Traits::kPortionSums *
           static_cast<std::uint32_t>(sizeof(float));
  }
};

}  // namespace unweight::sm90
