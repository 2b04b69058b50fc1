// SPDX-License-Identifier: Apache-2.0
//
// Fused decode and multiplication for more than 64 tokens: Y[M, N] = X[M, K] * W[N, K]^T + bias[N], W a blob's matrix.
//
//   in     W     tiles of 16 rows x 64 columns, 1408 B each, or raw values row-major (docs/FORMAT.md)
//          X     bf16, rows of any stride
//          bias  bf16, optional
//   out    Y     bf16, rows of any stride; sums in float
//
//   work   tensor cores: 128 rows x 256 tokens x 64 columns take a multiprocessor 1024 cycles. 28672 x 4096 with 512
//          tokens: 122 us at 1.8 GHz, 132 multiprocessors: the floor.
//   bytes  for such a step: shared memory 134 KiB (products read X twice, 64; X comes, 32; tiles come and are read, 22;
//          exponents make a detour, 16), 1072 cycles at 128 B a cycle. L2 cache: X 16 KiB, since two blocks share it,
//          and 11 KiB of tiles.
//
// An *item* is kStrips strips of two blocks, over all of K, with kTokens tokens. The two blocks are a cluster: each
// copies half of the tokens of X to both. Few items are given to clusters of several pairs, which divide K; see
// schedule.cuh. A *column* is a block's tiles of the same 64 columns of W. One block a multiprocessor, three
// warpgroups:
//
//   1 requester           tensor copies of a column's tiles; of X, half the tokens, to both blocks  ---> rings of slots
//   3 listers             lists of exceptions, and where each tile's begins, a chunk of columns ahead: rings of two
//   chunks
//
//   2 x 4 consumer warps  two tiles in turns, each of 16 rows in a warp's registers:
//                           codes -> exponents by PRMT; exceptions by way of shared memory; join with sign+mantissa:
//                           the A operand. The other warpgroup has begun its product; wgmma; the one before has ended:
//                           release X
//                         at an item's end: sums, rounded, by way of the warp's own memory to Y. The rings fill
//                         meanwhile, and warps do not wait for one another
//
// Sums: a row's products are added in the order of K. Parts of an item, where it is split, are added in the order of K,
// too. So the bits of Y depend on `split` (and then on strips and the number of multiprocessors), and on nothing else;
// not split, they are those of kernels/sm90_small_batch.cuh with 16 strips.
//
// Sources: the register layouts of wgmma, stmatrix and the 128-byte swizzle are from the PTX ISA. Roles of warpgroups
// that take turns are those of CUTLASS's "ping-pong" kernels and of FlashAttention-3 (Shah et al., 2024).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda.h>
#include <cuda/device/large_batch_block.cuh>
#include <cuda/device/large_batch_consumer.cuh>
#include <cuda/device/large_batch_helpers.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/registers.cuh>

namespace unweight::sm90 {

template <class Config>
__global__ void __launch_bounds__(LargeBatchTraits<Config>::kThreads, 1)
    large_batch_kernel(const __grid_constant__ LargeBatchParams params, const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ CUtensorMap w_map) {
  using Traits = LargeBatchTraits<Config>;
  std::byte* const shared = ptx::dynamic_shared_memory();
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  auto& schedule = *reinterpret_cast<Schedule*>(shared + LargeBatchMap<Config>::kSchedule);
  const LargeBatchBlock<Config> block{params, x_map,
                                      w_map,  schedule,
                                      shared, ptx::shared_address(shared),
                                      lane,   blockIdx.x / Traits::kSharers % params.deal.parts};
  ptx::launch_dependents();
  const bool consumes = warp < Traits::kConsumers, requests = warp == Traits::kConsumers;
  LargeBatchConsumer<Config> consumer{block};
  LargeBatchLister<Config> lister(block, warp - Traits::kConsumers - 1);
  const LargeBatchRequester<Config> requester{block};
  // Every part begins with what it can do before all have met.
  if (threadIdx.x == 0) schedule = Schedule(params.deal, block.pair());
  if (consumes) {
    consumer.begin_work();
  } else if (requests) {
    requester.begin_work();
  } else if constexpr (!Config::kRaw) {
    lister.begin_work();
  }
  __syncthreads();
  block.meet_cluster();  // barriers are set up
  if (consumes) {
    ptx::take_registers<Traits::kConsumerRegisters>();
    consumer.run();
  } else {
    ptx::give_registers<Traits::kHelperRegisters>();
    if (requests) {
      requester.run();
    } else if constexpr (!Config::kRaw) {
      lister.run();
    }
    if (params.deal.by_clusters()) block.meet_cluster();  // as consumers do before they exchange sums
  }
  block.meet_cluster();  // others may still arrive at this block's barriers
}

}  // namespace unweight::sm90
