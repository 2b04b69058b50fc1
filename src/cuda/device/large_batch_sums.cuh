// SPDX-License-Identifier: Apache-2.0
//
// The end of an item of kernels/sm90_large_batch.cuh. Lanes of two blocks that work on one item hold sums of the same
// places: these go from registers to registers, 16 bytes at a time. Finished sums become a part of Y by way of shared
// memory, 32 tokens at a time (strip_output.cuh).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>
#include <cuda/ptx/registers.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

template <class Config>
struct LargeBatchSums : LargeBatchBlock<Config> {
  using Block = LargeBatchBlock<Config>;
  using Traits = LargeBatchTraits<Config>;
  using Map = LargeBatchMap<Config>;
  using Block::params, Block::lane, Block::base, Block::shared;
  static constexpr std::uint32_t kGroups = Traits::kGroups, kGroupTiles = Traits::kGroupTiles;
  using Sums = float[kGroups * kGroupTiles][4];
  using Group = float[kGroupTiles][4];

  /// Stores what lies inside Y; or, of an item that another block finishes, partial sums. Clears the sums.
  __device__ void store(const Segment& segment, Sums& sums) const {
    ptx::wait_for_previous_grids();  // nothing has been written so far
    std::uint32_t thread = threadIdx.x;
    ptx::keep(thread);  // from here on, so that no address that depends on it is kept in registers during the items
    if (params.deal.by_clusters()) {
      store_by_cluster(segment, thread, sums);
    } else if (segment.end != params.deal.steps) {
      store_partials(thread, sums);
    } else {
      if (segment.begin != 0) add_partials(segment.first_peer, thread, sums);
      const auto item = this->locate(segment.item);
      UNWEIGHT_UNROLL
      for (std::uint32_t group = 0; group < kGroups; ++group) {
        store_group(item, group, thread, group_of(sums, group));
      }
    }
    UNWEIGHT_UNROLL
    for (auto& tile : sums) {
      UNWEIGHT_UNROLL
      for (float& sum : tile) sum = 0;
    }
  }

 private:
  static __device__ const Group& group_of(const Sums& sums, std::uint32_t group) {
    return reinterpret_cast<const Group&>(sums[group * kGroupTiles]);
  }

  /// A warp's 16 features of a group of tokens.
  __device__ void store_group(const typename Block::Item& item, std::uint32_t group, std::uint32_t thread,
                              const Group& sums) const {
    ptx::keep(thread);  // places are found anew for each group: all of them at once would take too many registers
    const std::uint32_t warp = thread / device::kLanes;
    StripOutput{params, shared, base, Map::kOwn + warp * Map::kOwnBytes, thread % device::kLanes}.store(
        (item.first_strip + warp) * format::kTileRows, item.first_token + group * Traits::kGroupTokens, sums);
  }

  // ---- partial sums by way of global memory -------------------------------------------------------------------------

  /// Where a pair leaves a thread's partial sums of the first tile of tokens; those of the next lie kTileSums further.
  [[nodiscard]] __device__ float* partials(std::uint32_t pair, std::uint32_t thread) const {
    const std::uint32_t block = pair * Traits::kSharers + this->sharer();
    return params.partial_sums + std::uint64_t{block} * Traits::kItemSums + 4 * thread;
  }
  static constexpr std::uint32_t kTileSums = 4 * Traits::kConsumerThreads;
  /// The flag of a warp of such a block.
  [[nodiscard]] __device__ std::uint32_t* flag(std::uint32_t pair, std::uint32_t thread) const {
    const std::uint32_t block = pair * Traits::kSharers + this->sharer();
    return params.partial_flags + block * Traits::kConsumers + thread / device::kLanes;
  }

  __device__ void store_partials(std::uint32_t thread, const Sums& sums) const {
    float* const to = partials(Block::pair(), thread);
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < kGroups * kGroupTiles; ++t) {
      *reinterpret_cast<float4*>(to + t * kTileSums) = make_float4(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
    }
    __syncwarp();
    if (lane == 0) ptx::set_flag(flag(Block::pair(), thread));
  }

  /// Adds those of pairs first_peer to the one before this, in their order. Pairs of a lower number have begun earlier.
  __device__ void add_partials(std::uint32_t first_peer, std::uint32_t thread, Sums& sums) const {
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t peer = first_peer; peer < Block::pair(); ++peer) {
      if (lane == 0) {
        ptx::wait_for_flag(flag(peer, thread));
        *flag(peer, thread) = 0;  // for the next launch: nobody else reads it
      }
      __syncwarp();
      const float* const from = partials(peer, thread);
      UNWEIGHT_UNROLL
      for (std::uint32_t begin = 0; begin < kGroups * kGroupTiles; begin += kTilesAhead) {
        float more[kTilesAhead][4];
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kTilesAhead; ++t) ptx::load_from_l2(more[t], from + (begin + t) * kTileSums);
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < 4 * kTilesAhead; ++i) sums[begin + i / 4][i % 4] += more[i / 4][i % 4];
      }
    }
  }
  /// Tiles of tokens whose partial sums are waited for at once: as many as there are registers for.
  static constexpr std::uint32_t kTilesAhead = 8;

  // ---- sums of a cluster --------------------------------------------------------------------------------------------

  /// A pair's part of an item that a cluster has. The parts share out the groups of tokens, in turns: each sends the
  /// others what is theirs, and adds up its own in the order of K.
  __device__ void store_by_cluster(const Segment& segment, std::uint32_t thread, const Sums& sums) const {
    const std::uint32_t parts = params.deal.parts, mine = this->part;
    Block::meet_cluster();  // nobody reads X any more
    for_groups([&](std::uint32_t group, std::uint32_t owner, std::uint32_t turn) {
      if (owner == mine) return;
      const std::uint32_t rank = Block::first_rank(owner) + Block::sharer();
      const std::uint32_t to =
          ptx::cluster_address(base + received_at(turn * (parts - 1) + mine - (mine > owner ? 1 : 0), thread), rank);
      const std::uint32_t barrier = ptx::cluster_address(this->all_received(), rank);
      UNWEIGHT_UNROLL
      for (std::uint32_t t = 0; t < kGroupTiles; ++t) {
        ptx::store_async_to_cluster(to + t * kTileBytes, group_of(sums, group)[t], barrier);
      }
    });
    const auto item = this->locate(segment.item);
    if (mine < kGroups) ptx::barrier_wait(this->all_received(), 0);
    for_groups([&](std::uint32_t group, std::uint32_t owner, std::uint32_t turn) {
      if (owner != mine) return;
      Group total = {};
      std::uint32_t from = received_at(turn * (parts - 1), thread);
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t i = 0; i < parts; ++i) {
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kGroupTiles; ++t) {
          const float(&own)[4] = group_of(sums, group)[t];
          float4 more = make_float4(own[0], own[1], own[2], own[3]);
          if (i != mine) more = *reinterpret_cast<const float4*>(shared + from + t * kTileBytes);
          total[t][0] += more.x, total[t][1] += more.y, total[t][2] += more.z, total[t][3] += more.w;
        }
        if (i != mine) from += kGroupTiles * kTileBytes;
      }
      store_group(item, group, thread, total);
    });
  }

  /// Calls take(group, owner, turn): it is the owner's group number `turn`.
  template <class Take>
  __device__ void for_groups(Take take) const {
    std::uint32_t owner = 0, turn = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t group = 0; group < kGroups; ++group) {
      take(group, owner, turn);
      if (++owner == params.deal.parts) owner = 0, ++turn;
    }
  }

  /// Of all threads' sums of a tile of tokens.
  static constexpr std::uint32_t kTileBytes = kTileSums * static_cast<std::uint32_t>(sizeof(float));

  /// Offset in shared memory of a group's sums that a block has received, the place-th such.
  [[nodiscard]] static __device__ std::uint32_t received_at(std::uint32_t place, std::uint32_t thread) {
    return Map::kReceived + place * kGroupTiles * kTileBytes + thread * 4 * static_cast<std::uint32_t>(sizeof(float));
  }
};

}  // namespace unweight::sm90
