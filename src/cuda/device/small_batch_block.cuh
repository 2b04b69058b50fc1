// SPDX-License-Identifier: Apache-2.0
//
// What the warps of a block of kernels/sm90_small_batch.cuh share: where things are, barriers, and how X gets into a
// slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/activation_tiles.cuh>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_ring.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/wgmma.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

/// Named barriers of a block; 0 is __syncthreads()'s.
enum SmallBatchBarrier : std::uint32_t {
  kConsumersMeet = 1,
  kSumsWritten,
  kSumsThere,
  kStripMeets  ///< and the following ones: a strip's warps, where warpgroups multiply
};

/// What the parts of a block share.
template <class Config>
struct SmallBatchBlock {
  using Traits = SmallBatchTraits<Config>;
  const SmallBatchParams& params;
  const CUtensorMap& x_map;
  const CUtensorMap& w_map;
  const SmallBatchMap<Config> map;
  const Schedule& schedule;  ///< in shared memory: registers are few
  std::byte* shared;
  std::uint32_t base;  ///< shared-memory address of `shared`
  std::uint32_t lane;

  [[nodiscard]] __device__ std::uint32_t full(std::uint32_t slot) const { return base + map.full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t empty(std::uint32_t slot) const { return base + map.empty + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_full(std::uint32_t slot) const { return base + map.x_full + 8 * slot; }
  [[nodiscard]] __device__ std::uint32_t x_empty(std::uint32_t slot) const { return base + map.x_empty + 8 * slot; }

  /// Of warpgroups: all sums have come that this block of a cluster finishes.
  [[nodiscard]] __device__ std::uint32_t all_received() const { return base + map.all_received; }
  /// Where block `owner` of a cluster receives the sums of its portion number `turn` from block `from`: what to add to
  /// map.received.
  [[nodiscard]] __device__ std::uint32_t received_at(std::uint32_t turn, std::uint32_t owner,
                                                     std::uint32_t from) const {
    return (turn * (params.deal.parts - 1) + from - (from > owner ? 1 : 0)) * Traits::kPortionBytes;
  }

  __device__ void write_schedule(const Schedule& made) const {
    *reinterpret_cast<Schedule*>(shared + map.schedule) = made;
  }

  /// By a warp, a slot a lane, though the hardware does one after the other: barriers of slots begin to end - 1 that
  /// tell that they are full. For racecheck by one lane, behind a branch: of lanes where this instruction's predicate
  /// is false it reports that they write to another block's memory.
  __device__ void init_full(std::uint32_t begin, std::uint32_t end) const {
    const std::uint32_t x_arrivals = Traits::kXApart || params.x_by_tensor_copy ? 0 : Traits::kWarpArrivals;
    std::uint32_t slot = begin + lane;
    if constexpr (kForRacecheck) {
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
    if constexpr (Config::kWarpgroup) {
      if (lane == 0 && params.deal.by_clusters()) {
        ptx::barrier_init(all_received(), 1);
        ptx::fence_barrier_init();
        const std::uint32_t parts = params.deal.parts, rank = blockIdx.x % parts;
        ptx::barrier_arrive_expect(all_received(), SmallBatchMap<Config>::received_bytes(rank, parts));
      }
      __syncwarp();
    }
    if constexpr (kForRacecheck) {
      if (lane == 0) {
        UNWEIGHT_NO_UNROLL
        for (std::uint32_t slot = 0; slot < params.stages; ++slot) {
          ptx::barrier_init(empty(slot), Traits::kEmptyArrivals);
        }
        UNWEIGHT_NO_UNROLL
        for (std::uint32_t slot = 0; Traits::kXApart && slot < Traits::kXSlots; ++slot) {
          ptx::barrier_init(x_full(slot), params.x_by_tensor_copy ? 1 : Traits::kWarpArrivals);
          ptx::barrier_init(x_empty(slot), Traits::kEmptyArrivals);
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
        ptx::barrier_init(x_empty(lane), Traits::kEmptyArrivals);
      }
    }
    ptx::fence_barrier_init();
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

  /// X of tiles `tile` and on along K to a slot.
  __device__ void copy_x(std::uint32_t tile, std::uint32_t slot, std::uint32_t barrier) const {
    ptx::tensor_copy(base + map.x + slot * Traits::kXBytes, &x_map, 0, tile, barrier);
  }

  /// Likewise by ordinary loads, where a tensor copy cannot address it. By the whole warp, which arrives at the
  /// barrier.
  __device__ void store_x(std::uint32_t first_tile, std::uint32_t slot, std::uint32_t barrier) const {
    store_x_tiles(params, shared + map.x + slot * Traits::kXBytes, {0, params.x_tile_rows}, first_tile,
                  Traits::kColTiles, lane);
    if constexpr (Config::kWarpgroup) ptx::fence_async_proxy();
    arrive(barrier);
  }
};

}  // namespace unweight::sm90
