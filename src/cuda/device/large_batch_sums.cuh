// SPDX-License-Identifier: Apache-2.0
//
// The end of an item of kernels/sm90_small_batch.cuh for more than 64 tokens. Every strip has one warp, so the lanes of
// two blocks that work on one item hold sums of the same places: these go from registers to registers, 16 bytes at a
// time, without an exchange between the warps of a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/device/small_batch_messenger.cuh>
#include <cuda/device/strip_output.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>
#include <cuda/ptx/registers.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

template <class Config>
struct LargeBatchSums : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::map, Block::shared;
  using Sums = float[Config::kTokenTiles][4];
  static constexpr std::uint32_t kGroups = Traits::kGroups;
  /// Tiles of tokens whose partial sums are waited for at once: as many as there are registers for.
  static constexpr std::uint32_t kTilesAhead = 8;
  static_assert(Config::kTokenTiles % kTilesAhead == 0);

  /// Stores what lies inside Y; or, of an item that another block finishes, partial sums. Clears the sums.
  /// @param own_place  of the warp's own memory
  __device__ void store(const SmallBatchSegment& segment, std::uint32_t own_place, Sums& sums) const {
    ptx::wait_for_previous_grids();  // nothing has been written so far
    std::uint32_t thread = threadIdx.x;
    ptx::keep(thread);  // from here on, so that no address that depends on it is kept in registers during the items
    if (params.deal.by_clusters()) {
      store_by_cluster(segment, own_place, thread, sums);
    } else if (segment.end != params.deal.steps) {
      store_partials(thread, sums);
      SmallBatchMessenger<Config>::tell();
    } else {
      if (segment.begin != 0) {
        SmallBatchMessenger<Config>::await();
        add_partials(segment.first_peer, thread, sums);
      }
      const StripOutput<Config> output(*this, segment.item, thread / device::kLanes);
      UNWEIGHT_UNROLL
      for (std::uint32_t group = 0; group < kGroups; ++group) output.store(own_place, group, group_of(sums, group));
    }
    UNWEIGHT_UNROLL
    for (auto& tile : sums) {
      UNWEIGHT_UNROLL
      for (float& sum : tile) sum = 0;
    }
  }

 private:
  static __device__ const TokenGroup& group_of(const Sums& sums, std::uint32_t group) {
    return reinterpret_cast<const TokenGroup&>(sums[group * kGroupTiles]);
  }

  /// Where a peer, or the block itself, leaves a thread's partial sums of a tile of tokens.
  [[nodiscard]] __device__ float* partial(std::uint32_t peer, std::uint32_t tile, std::uint32_t thread) const {
    return params.partial_sums + std::uint64_t{this->block_of(peer)} * Traits::kItemSums +
           (tile * Traits::kConsumerThreads + thread) * 4;
  }

  __device__ void store_partials(std::uint32_t thread, const Sums& sums) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      *reinterpret_cast<float4*>(partial(this->group(), t, thread)) =
          make_float4(sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
    }
  }

  /// Adds those of peers first_peer to the one before this, in their order.
  __device__ void add_partials(std::uint32_t first_peer, std::uint32_t thread, Sums& sums) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t begin = 0; begin < Config::kTokenTiles; begin += kTilesAhead) {
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t peer = first_peer; peer < this->group(); ++peer) {
        float more[kTilesAhead][4];
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kTilesAhead; ++t) ptx::load_from_l2(more[t], partial(peer, begin + t, thread));
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < 4 * kTilesAhead; ++i) sums[begin + i / 4][i % 4] += more[i / 4][i % 4];
      }
    }
  }

  /// A block's part of an item that a cluster has. Its blocks share out the groups of tokens, in turns: each sends the
  /// others what is theirs, and adds up its own in the order of K.
  __device__ void store_by_cluster(const SmallBatchSegment& segment, std::uint32_t own_place, std::uint32_t thread,
                                   const Sums& sums) const {
    const std::uint32_t parts = params.deal.parts, rank = blockIdx.x - segment.item * parts;
    this->await_cluster();
    for_groups([&](std::uint32_t group, std::uint32_t owner, std::uint32_t turn) {
      if (owner == rank) return;
      const std::uint32_t to = ptx::cluster_address(
          this->base + received_at(turn * (parts - 1) + rank - (rank > owner ? 1 : 0), thread), owner);
      const std::uint32_t barrier = ptx::cluster_address(this->all_received(), owner);
      const TokenGroup& mine = group_of(sums, group);
      UNWEIGHT_UNROLL
      for (std::uint32_t t = 0; t < kGroupTiles; ++t) {
        ptx::store_async_to_cluster(to + t * kTileBytes, mine[t], barrier);
      }
    });
    if (rank < kGroups) ptx::barrier_wait(this->all_received(), 0);
    const StripOutput<Config> output(*this, segment.item, thread / device::kLanes);
    for_groups([&](std::uint32_t group, std::uint32_t owner, std::uint32_t turn) {
      if (owner != rank) return;
      TokenGroup total = {};
      std::uint32_t from = received_at(turn * (parts - 1), thread);
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t part = 0; part < parts; ++part) {
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kGroupTiles; ++t) {
          const float(&mine)[4] = group_of(sums, group)[t];
          float4 more = make_float4(mine[0], mine[1], mine[2], mine[3]);
          if (part != rank) more = *reinterpret_cast<const float4*>(shared + from + t * kTileBytes);
          total[t][0] += more.x, total[t][1] += more.y, total[t][2] += more.z, total[t][3] += more.w;
        }
        if (part != rank) from += kGroupTiles * kTileBytes;
      }
      output.store(own_place, group, total);
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
  static constexpr std::uint32_t kTileBytes = 4 * sizeof(float) * Traits::kConsumerThreads;

  /// Offset in shared memory of a group's sums that a block has received, the place-th such.
  [[nodiscard]] __device__ std::uint32_t received_at(std::uint32_t place, std::uint32_t thread) const {
    return map.received + place * kGroupTiles * kTileBytes + thread * 4 * static_cast<std::uint32_t>(sizeof(float));
  }
};

}  // namespace unweight::sm90
