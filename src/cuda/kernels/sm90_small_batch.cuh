// SPDX-License-Identifier: Apache-2.0
//
// Fused decode and multiplication for 1 to 128 tokens: Y[M, N] = X[M, K] * W[N, K]^T + bias[N], W a blob's matrix.
//
//   in     W     tiles of 16 rows x 64 columns, 1408 B each, or raw values row-major (docs/FORMAT.md)
//          X     bf16, rows of any stride
//          bias  bf16, optional
//   out    Y     bf16, rows of any stride; sums in float
//
//   bytes  11.23 bits a weight, read once. 28672 x 4096: 165 MB, 53 us at the 3.1 TB/s of a read: the floor.
//   work   5.6 instructions a weight for 64 tokens, fewer for few; at the floor a multiprocessor issues 13.8.
//
// An *item* is kStrips strips of 16 output features over all of K. Blocks take neighbouring items, so that the chip
// reads one region of the blob at a time; items that would leave most blocks idle are split among blocks along K
// (device/schedule.cuh). A *stage* is what a block reads at once, 16 tiles: kStrips strips x
// kColTiles = 16 / kStrips tiles along K. One block of 19 or 20 warps a multiprocessor:
//
//   2 producers          a warp each, in turns: tiles and X by a tensor copy each;         rings of slots
//                        where each tile's exceptions lie, 16-byte copies of them    --->  in shared memory,
//   X producer           one thread, where X has slots of its own                          full/empty barriers
//
//   16 consumer warps    (12 for more than 64 tokens) wait for the slot; each takes one tile of the stage:
//                          codes -> exponents by PRMT -> own 1 KiB of shared memory
//                          patch exceptions there, one byte each; read the exponents back
//                          join them with sign+mantissa: the A operand, in registers
//                          B operand by ldmatrix, mma.sync; or four warps together and wgmma, which reads X itself and
//                          runs while the next tile is decoded
//                        at an item's end: sums to shared memory, added in the order of K, rounded, stored
//
//   messenger            one warp: sets up the barriers and requests the first stages; later tells other blocks of
//                        partial sums, waits for theirs
//
// What a warp issues for a stage is a matter of latency, not of throughput: a warp that did all of the producers' work
// needed longer than the stage's bytes. So everything that waits for memory has a warp of its own, and consumers wait
// for barriers alone.
//
// Sums: a warp adds its tiles in the order of K; then the kColTiles warps of a strip are added in order; then the
// blocks of a split item, in the order of K, over each other's shared memory where they are a cluster. So the bits of Y
// depend on strips, split and warpgroup of the configuration (with split on the number of multiprocessors too), and on
// nothing else: not on tokens, stages, or scheduling.
//
// Raw weights are the same kernel with another source of the A operand: a tensor copy of 64-column tiles and ldmatrix.
//
// Sources: the register layouts of mma.m16n8k16, ldmatrix, wgmma and the 128-byte swizzle are from the PTX ISA. Dealing
// out stages instead of tiles is the idea of Stream-K (Osama et al., 2023); the order of work that avoids waiting is
// ours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda.h>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/device/small_batch_consumer.cuh>
#include <cuda/device/small_batch_messenger.cuh>
#include <cuda/device/small_batch_producers.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/registers.cuh>

namespace unweight::sm90 {

template <class Config>
__global__ void __launch_bounds__(SmallBatchTraits<Config>::kThreads, 1)
    small_batch_kernel(const __grid_constant__ SmallBatchParams params, const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ CUtensorMap w_map) {
  using Traits = SmallBatchTraits<Config>;
  std::byte* const shared = ptx::dynamic_shared_memory();
  const SmallBatchMap<Config> map(params.stages, params.deal.parts);
  const std::uint32_t warp = threadIdx.x / device::kLanes, lane = threadIdx.x % device::kLanes;
  const auto& schedule = *reinterpret_cast<const Schedule*>(shared + map.schedule);
  const SmallBatchBlock<Config> block{params, x_map, w_map, map, schedule, shared, ptx::shared_address(shared), lane};
  ptx::launch_dependents();
  // Every part begins with what it can do before all have met.
  SmallBatchConsumer<Config> consumer{block};
  SmallBatchProducer<Config> producer{block, warp - Traits::kFirstProducer};
  const bool produces = warp - Traits::kFirstProducer < Traits::kProducers;
  if (warp < Traits::kConsumers) {
    consumer.begin();
  } else if (produces) {
    producer.begin();
  } else if (warp == Traits::kMessenger) {
    producer.request_first();
  }
  __syncthreads();
  if (params.deal.by_clusters())
    ptx::cluster_arrive_relaxed();  // the block has begun; barriers have a fence of their own
  if (warp < Traits::kConsumers) {
    if constexpr (Config::kWarpgroup) ptx::take_registers<Traits::kConsumerRegisters>();
    consumer.run();
    return;
  }
  if constexpr (Config::kWarpgroup) ptx::give_registers<Traits::kProducerRegisters>();
  if (produces) {
    producer.run();
  } else if (warp == Traits::kMessenger) {
    SmallBatchMessenger<Config>{block}.run();
  } else if constexpr (Traits::kXApart) {
    SmallBatchXProducer<Config>{block}.run();
  }
  if (params.deal.by_clusters()) ptx::cluster_wait();
}

}  // namespace unweight::sm90
