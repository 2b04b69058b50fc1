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
enum SmallBatchBarrier : std::uint32_t { kConsumersMeet = 1, kSumsWritten, kSumsThere, kTurn };

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

  /// By all threads, at their end: the other block, which shares X, may still arrive here.
  __device__ void leave_pair() const {
    ptx::cluster_arrive_relaxed();
    ptx::cluster_wait();
  }

  /// Where a cluster's blocks send sums: all that this block finishes have come.
  [[nodiscard]] __device__ std::uint32_t all_received() const { return base + map.all_received; }

  /// By a warp, a slot a lane, though the hardware does one after the other: barriers of slots begin to end - 1 that
  /// tell that they are full. For racecheck by one lane, behind a branch: of lanes where this instruction's predicate
  /// is false it reports that they write to another block's memory.
  __device__ void init_full(std::uint32_t begin, std::uint32_t end) const {
    const std::uint32_t x_arrivals = Traits::kXApart || params.x_by_tensor_copy ? 0 : Traits::kWarpArrivals;
    std::uint32_t slot = begin + lane;
    if constexpr (Traits::kForRacecheck) {
      if (lane == 0) {
        UNWEIGHT_NO_UNROLL
        for (slot = begin; slot < end; ++slot) ptx::barrier_init(full(slot), Traits::kFullArrivals + x_arrivals);
      }
      slot = end;
    }
    if (slot < end) ptx::barrier_init(full(slot), Traits::kFullArrivals + x_arrivals);
    ptx::fence_barrier_init();
    __syncwarp();
  }

  /// Likewise all other barriers. For racecheck in lines of their own: shared ones changed the default build's code.
  __device__ void init_others() const {
    if constexpr (Traits::kForRacecheck) {
      if (lane == 0) {
        UNWEIGHT_NO_UNROLL
        for (std::uint32_t slot = 0; slot < params.stages; ++slot) {
          ptx::barrier_init(empty(slot), Traits::kEmptyArrivals);
        }
        UNWEIGHT_NO_UNROLL
        for (std::uint32_t slot = 0; Traits::kXApart && slot < Traits::kXSlots; ++slot) {
          ptx::barrier_init(x_full(slot), params.x_by_tensor_copy ? 1 : Traits::kWarpArrivals);
          ptx::barrier_init(x_empty(slot), Traits::kXEmptyArrivals);
        }
      }
      ptx::fence_barrier_init();
      __syncwarp();
      return;
    }
    if (lane < params.stages) ptx::barrier_init(empty(lane), Traits::kEmptyArrivals);
    if constexpr (Traits::kXApart) {
      if (lane < Traits::kXSlots) {
        ptx::barrier_init(x_full(lane), params.x_by_tensor_copy ? 1 : Traits::kWarpArrivals);
        ptx::barrier_init(x_empty(lane), Traits::kXEmptyArrivals);
      }
    }
    ptx::fence_barrier_init();
    __syncwarp();
  }

  /// By one lane, once all_received() is to be waited for: what this block's peers send.
  __device__ void init_received() const {
    if (lane == 0 && params.deal.by_clusters()) {
      ptx::barrier_init(all_received(), 1);
      ptx::fence_barrier_init();
      ptx::barrier_arrive_expect(all_received(),
                                 Traits::received_bytes(blockIdx.x % params.deal.parts, params.deal.parts));
    }
    __syncwarp();
  }

  /// By a warp: arrives at a slot's barrier, after all that its lanes have read and written there. One lane does, since
  /// an arrival is an atomic operation; racecheck follows the arriving lanes alone, so in builds for it
  /// (UNWEIGHT_RACECHECK) all do.
  __device__ void arrive(std::uint32_t barrier, bool wanted = true) const {
    __syncwarp();
    if (lane < Traits::kWarpArrivals && wanted) ptx::barrier_arrive(barrier);
  }

  /// Likewise, once what the warp has loaded from the slot has come: an arrival may overtake loads that nothing has
  /// waited for. So the barrier's address is made to depend on them.
  /// @param loaded  derived from a word of each such load
  __device__ void arrive_once(std::uint32_t loaded, std::uint32_t barrier) const {
    const std::uint32_t zero = params.stages / (2 * kMaxStages);  // which the compiler does not know
    arrive(barrier + (loaded & zero));
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
    const std::uint32_t to = base + map.x + slot * Traits::kXBytes;
    if constexpr (Config::kShareX) {
      const std::uint32_t first = rank() * Traits::kXCopyTokens;
      ptx::tensor_copy_to_pair(to + first * 2 * format::kTileCols, &x_map, token + first, tile, barrier);
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
