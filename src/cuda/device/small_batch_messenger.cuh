// SPDX-License-Identifier: Apache-2.0
//
// The warp of kernels/sm90_small_batch.cuh that talks to other blocks.
#pragma once

#include <cstdint>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>

namespace unweight::sm90 {

/// Tells other blocks of this block's partial sums, and waits for theirs: one warp, since both take long. The blocks of
/// a cluster need none.
///
/// A block has partial sums at most once for others, of its first segment, and needs others' at most once, for its
/// last.
template <class Config>
struct SmallBatchMessenger : SmallBatchBlock<Config> {
  static constexpr std::uint32_t kThreads = SmallBatchTraits<Config>::kConsumerThreads + device::kLanes;

  /// By the consumers: the block's partial sums are written.
  static __device__ void tell() { ptx::named_barrier_arrive(kSumsWritten, kThreads); }
  /// By the consumers: waits for those of the segment's peers.
  static __device__ void await() { ptx::named_barrier_sync(kSumsThere, kThreads); }

  __device__ void run() const {
    if (this->params.deal.by_clusters()) return;
    const Segment first = this->schedule.begun(), last = this->schedule.ended();
    std::uint32_t* const flags = this->params.partial_flags;
    if (first.exists()) {
      ptx::named_barrier_sync(kSumsWritten, kThreads);
      if (this->lane == 0) ptx::set_flag(flags + blockIdx.x);
    }
    if (last.exists()) {
      ptx::wait_for_previous_grids();
      for (std::uint32_t peer = last.first_peer + this->lane; peer < blockIdx.x; peer += device::kLanes) {
        std::uint32_t* const flag = flags + peer;
        ptx::wait_for_flag(flag);
        *flag = 0;  // for the next launch: nobody else reads it
      }
      __syncwarp();
      ptx::named_barrier_arrive(kSumsThere, kThreads);
    }
  }
};

}  // namespace unweight::sm90
