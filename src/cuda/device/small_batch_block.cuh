// SPDX-License-Identifier: Apache-2.0
//
// What the warps of a block of kernels/sm90_small_batch.cuh share: where things are, barriers, and how X gets into a
// slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_ring.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Named barriers of a block; 0 is __syncthreads()'s.
enum SmallBatchBarrier : std::uint32_t { kConsumersMeet = 1, kSumsWritten, kSumsThere, kFirstTurn, kSecondTurn };

/// What the parts of a block share.
template <class Config>
struct SmallBatchBlock {
  using Traits = SmallBatchTraits<Config>;
  static constexpr bool kTokenBlocks = Config::kTokenTiles > 8;  ///< X may have more tokens than an item
  static constexpr std::uint32_t kTokenBlocksAtOnce = 8;

  const SmallBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& w_map;
  const SmallBatchMap<Config> map;
  const SmallBatchSchedule& schedule;  ///< in shared memory: registers are few
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;

  [[nodiscard]] __device__ std::uint32_t full(std::uint32_t slot) const { return base + map.full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t empty(std::uint32_t slot) const { return base + map.empty + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_full(std::uint32_t slot) const { return base + map.x_full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_empty(std::uint32_t slot) const { return base + map.x_empty + 8 * slot; }

  __device__ void write_schedule(const SmallBatchSchedule& made) const {
    *reinterpret_cast<SmallBatchSchedule*>(shared + map.schedule) = made;
  }

  /// By all threads, when they have nothing left to do with the rings: waits until all of the cluster's blocks can
  /// receive sums.
  __device__ void await_cluster() const {
    ptx::cluster_wait();  // their barriers are set up
    if constexpr (Traits::kReceivesInRings) {
      ptx::cluster_arrive_relaxed();  // no read is under way
      ptx::cluster_wait();
    }
  }

  /// Where a cluster's blocks send sums: all that this block finishes have come.
  [[nodiscard]] __device__ std::uint32_t all_received() const { return base + map.all_received; }

  /// By a warp: barriers of slots Begin to End - 1 that tell that they are full. One lane sets up all, without a
  /// loop, which would cost 0.1 us: the hardware does one after the other anyhow, and of an instruction for many lanes
  /// racecheck reports those that do not take part.
  template <std::uint32_t Begin, std::uint32_t End>
  __device__ void init_full() const {
    const std::uint32_t x_arrivals = Traits::kXApart || params.x_by_tensor_copy ? 0 : Traits::kWarpArrivals;
    if (lane == 0) {
      UNWEIGHT_UNROLL
      for (std::uint32_t slot = Begin; slot < End; ++slot) {
        if (slot < params.stages) ptx::barrier_init(full(slot), Traits::kFullArrivals + x_arrivals);
      }
      ptx::fence_barrier_init();
    }
    __syncwarp();
  }

  /// Likewise all other barriers.
  __device__ void init_others() const {
    if (lane == 0) {
      UNWEIGHT_UNROLL
      for (std::uint32_t slot = 0; slot < kMaxStages; ++slot) {
        if (slot < params.stages) ptx::barrier_init(empty(slot), Traits::kEmptyArrivals);
      }
      if constexpr (Traits::kXApart) {
        UNWEIGHT_UNROLL
        for (std::uint32_t slot = 0; slot < Traits::kXSlots; ++slot) {
          ptx::barrier_init(x_full(slot), params.x_by_tensor_copy ? 1 : Traits::kWarpArrivals);
          ptx::barrier_init(x_empty(slot), Traits::kXEmptyArrivals);
        }
      }
      if (params.deal.by_clusters()) ptx::barrier_init(all_received(), 1);
      ptx::fence_barrier_init();
      if (params.deal.by_clusters()) {
        ptx::barrier_arrive_expect(all_received(),
                                   Traits::received_bytes(blockIdx.x % params.deal.parts, params.deal.parts));
      }
    }
    __syncwarp();
  }

  /// By a warp: arrives at a slot's barrier, after all that its lanes have read and written there. One lane does, since
  /// an arrival is an atomic operation; racecheck follows the arriving lanes alone, so builds for it define
  /// UNWEIGHT_EVERY_LANE_ARRIVES.
  __device__ void arrive(std::uint32_t barrier, bool wanted = true) const {
    __syncwarp();
    if (lane < Traits::kWarpArrivals && wanted) ptx::barrier_arrive(barrier);
  }

  /// Among the blocks that share X; and their number among such groups, which the work is dealt out to.
  [[nodiscard]] __device__ std::uint32_t rank() const { return blockIdx.x % Traits::kSharers; }
  [[nodiscard]] __device__ std::uint32_t group() const { return blockIdx.x / Traits::kSharers; }
  /// Of another group, the block with the same rows.
  [[nodiscard]] __device__ std::uint32_t block_of(std::uint32_t group) const {
    return group * Traits::kSharers + rank();
  }

  /// By a warp: it has read a slot of X.
  __device__ void release_x(std::uint32_t slot, bool wanted = true) const {
    arrive(x_empty(slot), wanted);
    if constexpr (Config::kShareX) {
      if (lane < Traits::kWarpArrivals && wanted) ptx::barrier_arrive_at(x_empty(slot), rank() ^ 1U);
    }
  }

  /// What an item is: rows of W, counted in blocks' items, and its first token. Neighbouring items have the same rows
  /// and up to kTokenBlocksAtOnce blocks of tokens, of which X stays in the L2 cache while all of W passes.
  struct Item {
    std::uint32_t rows, token;
  };
  [[nodiscard]] __device__ Item locate(std::uint32_t item) const {
    if constexpr (!kTokenBlocks) return {item, 0};
    const std::uint32_t band = item / (params.row_items * kTokenBlocksAtOnce);  // of tokens
    const std::uint32_t first = band * kTokenBlocksAtOnce, in_band = item - first * params.row_items;
    const std::uint32_t width = min(kTokenBlocksAtOnce, params.token_blocks - first), rows = in_band / width;
    return {rows * Traits::kSharers + rank(), (first + in_band - rows * width) * Traits::kTokens};
  }

  /// X of tiles `tile` and on along K to a slot; of a block that shares it, its tokens for both.
  __device__ void copy_x(std::uint32_t token, std::uint32_t tile, std::uint32_t slot, std::uint32_t barrier) const {
    const std::uint32_t first = rank() * Traits::kXCopyTokens;
    const std::uint32_t to = base + map.x + slot * Traits::kXBytes + first * 2 * format::kTileCols;
    if constexpr (Config::kShareX) {
      ptx::tensor_copy_to_pair(to, &x_map, token + first, tile, barrier);
    } else {
      ptx::tensor_copy(to, &x_map, token, tile, barrier);
    }
  }

  /// Likewise by ordinary loads, where a tensor copy cannot address it. By the whole warp, which arrives at the
  /// barrier.
  __device__ void store_x(std::uint32_t first_token, std::uint32_t first_tile, std::uint32_t slot,
                          std::uint32_t barrier) const {
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = lane; i < Traits::kXTiles * format::kTileCols * Traits::kTokens; i += device::kLanes) {
      const std::uint32_t k = i % format::kTileCols, token = i / format::kTileCols % Traits::kTokens;
      const std::uint32_t tile = i / (format::kTileCols * Traits::kTokens);
      const std::uint32_t col = (first_tile + tile) * format::kTileCols + k;
      const std::uint64_t row = first_token + token;
      const bool inside = row < params.tokens && col < params.cols;
      const std::uint16_t value = inside ? params.x[row * params.x_stride + col] : std::uint16_t{0};
      const std::uint32_t at =
          slot * Traits::kXBytes + tile * Traits::kXTileBytes + token * 128 + ((k / 8 ^ (token & 7)) * 16) + k % 8 * 2;
      *reinterpret_cast<std::uint16_t*>(shared + map.x + at) = value;
    }
    if constexpr (Config::kWarpgroup) ptx::fence_async_proxy();
    arrive(barrier);
  }
};

}  // namespace unweight::sm90
