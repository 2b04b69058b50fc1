// SPDX-License-Identifier: Apache-2.0
//
// The end of an item of kernels/sm90_small_batch.cuh where warpgroups multiply. The kColTiles warps of a strip share
// out its tokens: each gives the others what they finish, once, adds up its own in the order of K, and writes that part
// of Y, or of partial sums for another block, by itself. So a strip's warps wait for one another and for nobody else.
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
struct WarpgroupSums : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::map, Block::shared, Block::base, Block::lane;

  static constexpr std::uint32_t kTiles = Traits::kShareTiles;  ///< tiles of 8 tokens that a warp finishes
  using Sums = float[Config::kTokenTiles][4];
  using Share = float[kTiles][4];

  std::uint32_t strip, column;  ///< of the warp: of an item, of a stage
  std::uint32_t own;            ///< offset of the warp's own memory
  std::uint32_t parts;          ///< blocks of an item

  /// Stores what lies inside Y; or, of an item that another block finishes, partial sums. Clears the sums.
  __device__ void store(const Segment& segment, Sums& sums) {
    ptx::wait_for_previous_grids();  // nothing has been written so far
    // From here on, so that nothing that depends on these is kept in registers during the items.
    ptx::keep(lane);
    ptx::keep(strip);
    ptx::keep(parts);
    Share share;
    add_warps(sums, share);
    if (params.deal.by_clusters()) {
      store_by_cluster(segment, share);
    } else {
      if (segment.first_peer < blockIdx.x) SmallBatchMessenger<Config>::await();
      if (segment.end == params.deal.steps) {
        add_partials(segment.first_peer, share);
        store_y(segment.item, share, ~0U);
      } else {
        store_partials(share);
        SmallBatchMessenger<Config>::tell();
      }
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (float& sum : sums[t]) sum = 0;
    }
  }

 private:
  [[nodiscard]] __device__ float4* memory_of(std::uint32_t warp) const {
    return reinterpret_cast<float4*>(shared + map.warps + warp * Traits::kWarpBytes) + lane;
  }
  static __device__ void add(float (&to)[4], const float4& more) {
    to[0] += more.x, to[1] += more.y, to[2] += more.z, to[3] += more.w;
  }

  /// The strip's warps: none writes to its memory before the others have read there.
  __device__ void meet() const { ptx::named_barrier_sync(kStripMeets + strip, Traits::kColTiles * device::kLanes); }

  /// The sums of the strip's warps, in their order, of the tiles that this one finishes.
  __device__ void add_warps(const Sums& sums, Share& share) const {
    if constexpr (Traits::kColTiles > 1) {
      float4* const mine = reinterpret_cast<float4*>(shared + own) + lane;
      UNWEIGHT_UNROLL
      for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
        if (c == column) continue;
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kTiles; ++t) {
          const auto& s = sums[c * kTiles + t];
          mine[place_of(c, column, t)] = make_float4(s[0], s[1], s[2], s[3]);
        }
      }
      meet();
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
      const float4* const from = memory_of(c * Config::kStrips + strip);
      UNWEIGHT_UNROLL
      for (std::uint32_t t = 0; t < kTiles; ++t) {
        float4 more;
        if (c == column) {
          const auto& s = sums[c * kTiles + t];
          more = make_float4(s[0], s[1], s[2], s[3]);
        } else {
          more = from[place_of(column, c, t)];
        }
        if (c == 0) {
          share[t][0] = more.x, share[t][1] = more.y, share[t][2] = more.z, share[t][3] = more.w;
        } else {
          add(share[t], more);
        }
      }
    }
    if constexpr (Traits::kColTiles > 1) meet();
  }

  /// Where in its memory warp `from` leaves tile t for warp `to`, in units of a warp's float4.
  static __device__ std::uint32_t place_of(std::uint32_t to, std::uint32_t from, std::uint32_t t) {
    return ((to - (to > from ? 1 : 0)) * kTiles + t) * device::kLanes;
  }

  /// @param wanted  bit t: of the warp's tile t
  __device__ void store_y(std::uint32_t item, const Share& share, std::uint32_t wanted) const {
    constexpr std::uint32_t kAtOnce = Traits::kStagedTiles;
    const StripOutput output{params, shared, base, own, lane};
    const std::uint32_t row = item * Traits::kItemRows + strip * format::kTileRows;
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < kTiles; t += kAtOnce) {
      output.store(row, 8 * (column * kTiles + t), reinterpret_cast<const float(&)[kAtOnce][4]>(share[t]), wanted >> t);
    }
  }

  // ---- partial sums by way of global memory -------------------------------------------------------------------------

  /// Where a block leaves the lane's partial sums of the warp's first tile; those of the next lie kTileSums further.
  [[nodiscard]] __device__ float* partials(std::uint32_t block) const {
    return params.partial_sums + std::uint64_t{block} * Traits::kItemSums +
           (strip * Config::kTokenTiles + column * kTiles) * kTileSums + 4 * lane;
  }
  static constexpr std::uint32_t kTileSums = 4 * device::kLanes;

  __device__ void store_partials(const Share& share) const {
    float* const to = partials(blockIdx.x);
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < kTiles; ++t) {
      const auto& s = share[t];
      *reinterpret_cast<float4*>(to + t * kTileSums) = make_float4(s[0], s[1], s[2], s[3]);
    }
  }

  /// Adds those of blocks first_peer to the one before this, added up in their order; of so many tiles at a time as
  /// there are registers for.
  __device__ void add_partials(std::uint32_t first_peer, Share& share) const {
    if (first_peer == blockIdx.x) return;
    constexpr std::uint32_t kAtOnce = Traits::kStagedTiles;
    UNWEIGHT_UNROLL
    for (std::uint32_t begin = 0; begin < kTiles; begin += kAtOnce) {
      float before[kAtOnce][4] = {};
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t peer = first_peer; peer < blockIdx.x; ++peer) {
        const float* const from = partials(peer) + begin * kTileSums;
        float more[kAtOnce][4];
        UNWEIGHT_UNROLL
        for (std::uint32_t t = 0; t < kAtOnce; ++t) ptx::load_from_l2(more[t], from + t * kTileSums);
        UNWEIGHT_UNROLL
        for (std::uint32_t i = 0; i < 4 * kAtOnce; ++i) before[i / 4][i % 4] += more[i / 4][i % 4];
      }
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 4 * kAtOnce; ++i) share[begin + i / 4][i % 4] += before[i / 4][i % 4];
    }
  }

  // ---- sums of a cluster --------------------------------------------------------------------------------------------

  /// A block's part of an item that a cluster has. Its blocks share out the tiles, in turns: each sends the others what
  /// is theirs, from registers, and adds up its own in the order of K.
  __device__ void store_by_cluster(const Segment& segment, Share& share) const {
    const std::uint32_t rank = blockIdx.x - segment.item * parts;
    const std::uint32_t in_tile = (strip * device::kLanes + lane) * static_cast<std::uint32_t>(sizeof(float4));
    ptx::cluster_wait();  // all of the cluster's blocks have set up their barriers
    std::uint32_t wanted = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < kTiles; ++t) {
      const std::uint32_t turn = (column * kTiles + t) / parts, owner = column * kTiles + t - turn * parts;
      if (owner == rank) {
        wanted |= 1U << t;
      } else {
        const std::uint32_t to = base + map.received + Block::received_at(turn, owner, rank) + in_tile;
        ptx::store_async_to_cluster(ptx::cluster_address(to, owner), share[t],
                                    ptx::cluster_address(Block::all_received(), owner));
      }
    }
    ptx::barrier_wait(Block::all_received(), 0);
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < kTiles; ++t) {
      if ((wanted >> t & 1) == 0) continue;
      const std::uint32_t turn = (column * kTiles + t) / parts;
      float total[4] = {};
      UNWEIGHT_NO_UNROLL
      for (std::uint32_t part = 0; part < parts; ++part) {
        float4 more = make_float4(share[t][0], share[t][1], share[t][2], share[t][3]);
        if (part != rank) {
          const std::uint32_t from = map.received + Block::received_at(turn, rank, part) + in_tile;
          more = *reinterpret_cast<const float4*>(shared + from);
        }
        add(total, more);
      }
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < 4; ++i) share[t][i] = total[i];
    }
    store_y(segment.item, share, wanted);
  }
};

}  // namespace unweight::sm90
