// SPDX-License-Identifier: Apache-2.0
//
// The end of an item of kernels/sm90_small_batch.cuh where warps multiply by themselves: its sums, as 16 warps have
// them, become a part of Y, or partial sums for another block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/small_batch_block.cuh>
#include <cuda/device/small_batch_messenger.cuh>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/cluster.cuh>
#include <cuda/ptx/grid.cuh>
#include <cuda/ptx/memory.cuh>
#include <cuda/ptx/registers.cuh>
#include <format/layout.hpp>

namespace unweight::sm90 {

template <class Config>
struct SmallBatchSums : SmallBatchBlock<Config> {
  using Traits = SmallBatchTraits<Config>;
  using Block = SmallBatchBlock<Config>;
  using Block::params, Block::lane, Block::map, Block::shared;

  /// How many neighbouring sums a thread takes at a time, so that all threads have some.
  static constexpr std::uint32_t kWidth = Traits::kPortionSums >= 4 * Traits::kConsumerThreads   ? 4
                                          : Traits::kPortionSums >= 2 * Traits::kConsumerThreads ? 2
                                                                                                 : 1;
  /// How many times in a portion.
  static constexpr std::uint32_t kTurns = format::ceil_div(Traits::kPortionSums, kWidth* Traits::kConsumerThreads);

  struct alignas(4 * kWidth) Sums {
    float value[kWidth];

    __device__ void add(const Sums& other) {
      UNWEIGHT_UNROLL
      for (std::uint32_t i = 0; i < kWidth; ++i) value[i] += other.value[i];
    }
  };

  /// A thread's first sum of a portion in a turn; kPortionSums or more: none.
  static __device__ std::uint32_t first_sum(std::uint32_t thread, std::uint32_t turn) {
    return kWidth * (thread + turn * Traits::kConsumerThreads);
  }

  /// Adds the sums of the strip's warps in their order. Stores what lies inside Y; or, of an item that another block
  /// finishes, partial sums.
  /// @param own_place  of the warp's own memory
  __device__ void store(const Segment& segment, std::uint32_t own_place, float (&sums)[Config::kTokenTiles][4]) const {
    ptx::wait_for_previous_grids();  // nothing has been written so far
    std::uint32_t thread = threadIdx.x;
    ptx::keep(thread);  // from here on, so that no address that depends on it is kept in registers during the items
    auto* own = reinterpret_cast<float4*>(shared + own_place);
    if (params.deal.by_clusters()) {
      store_by_cluster(segment, own, thread, sums);
    } else {
      store_by_flags(segment, own, thread, sums);
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Config::kTokenTiles; ++t) {
      UNWEIGHT_UNROLL
      for (float& sum : sums[t]) sum = 0;
    }
  }

 private:
  /// Calls take(turn, first, sums) for the thread's sums of a portion, over the strip's warps.
  template <class Take>
  __device__ void add_warps(std::uint32_t portion, float4* own, std::uint32_t thread,
                            const float (&sums)[Config::kTokenTiles][4], Take take) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t t = 0; t < Traits::kPortionTiles; ++t) {
      const auto& s = sums[portion * Traits::kPortionTiles + t];
      own[t * device::kLanes + lane] = make_float4(s[0], s[1], s[2], s[3]);
    }
    ptx::named_barrier_sync(kConsumersMeet, Traits::kConsumerThreads);
    UNWEIGHT_UNROLL
    for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
      const std::uint32_t first = first_sum(thread, turn);
      if (first < Traits::kPortionSums) take(turn, first, sum_of_warps(first));
    }
    ptx::named_barrier_sync(kConsumersMeet, Traits::kConsumerThreads);  // before the memory is written again
  }

  /// A segment of an item that is split by stages, or a whole item.
  __device__ void store_by_flags(const Segment& segment, float4* own, std::uint32_t thread,
                                 const float (&sums)[Config::kTokenTiles][4]) const {
    if (segment.first_peer < blockIdx.x) SmallBatchMessenger<Config>::await();
    const bool finished = segment.end == params.deal.steps;
    Sums before[2][kTurns];  // of two portions, so that they are waited for at once
    UNWEIGHT_UNROLL
    for (std::uint32_t portion = 0; portion < Traits::kPortions; ++portion) {
      if (portion % 2 == 0) {
        load_partials(segment, portion, thread, before[0]);
        if (portion + 1 < Traits::kPortions) load_partials(segment, portion + 1, thread, before[1]);
      }
      add_warps(portion, own, thread, sums, [&](std::uint32_t turn, std::uint32_t first, Sums sum) {
        if (finished) {
          sum.add(before[portion % 2][turn]);
          store_y(segment.item, portion, first, sum);
        } else {
          float* partial = params.partial_sums + std::uint64_t{blockIdx.x} * Traits::kItemSums;
          *reinterpret_cast<Sums*>(partial + portion * Traits::kPortionSums + first) = sum;
        }
      });
    }
    if (!finished) SmallBatchMessenger<Config>::tell();
  }

  /// A block's part of an item that a cluster has. Its blocks share out the portions of the sums, in turns: each gives
  /// the others what is theirs, and adds up its own in the order of K.
  __device__ void store_by_cluster(const Segment& segment, float4* own, std::uint32_t thread,
                                   const float (&sums)[Config::kTokenTiles][4]) const {
    const std::uint32_t parts = params.deal.parts, rank = blockIdx.x - segment.item * parts;
    ptx::cluster_wait();  // all of the cluster's blocks have begun
    UNWEIGHT_UNROLL
    for (std::uint32_t portion = 0; portion < Traits::kPortions; ++portion) {
      add_warps(portion, own, thread, sums, [&](std::uint32_t, std::uint32_t first, const Sums& sum) {
        const std::uint32_t to = this->base + map.received + received_at(portion, rank, first);
        ptx::store_to_cluster(ptx::cluster_address(to, portion % parts), sum.value);
      });
    }
    ptx::cluster_arrive();
    ptx::cluster_wait();
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t portion = rank; portion < Traits::kPortions; portion += parts) {
      UNWEIGHT_UNROLL
      for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
        const std::uint32_t first = first_sum(thread, turn);
        if (first >= Traits::kPortionSums) continue;
        const auto received = [&](std::uint32_t part) {
          return *reinterpret_cast<const Sums*>(shared + map.received + received_at(portion, part, first));
        };
        Sums sum = received(0);
        for (std::uint32_t part = 1; part < parts; ++part) sum.add(received(part));
        store_y(segment.item, portion, first, sum);
      }
    }
  }

  /// Offset of what block `from` of a cluster sends, where it is received.
  [[nodiscard]] __device__ std::uint32_t received_at(std::uint32_t portion, std::uint32_t from,
                                                     std::uint32_t first) const {
    const std::uint32_t parts = params.deal.parts, place = portion / parts * parts + from;
    return (place * Traits::kPortionSums + first) * static_cast<std::uint32_t>(sizeof(float));
  }

  /// The thread's sums of a portion, as the blocks before this one have left them.
  __device__ void load_partials(const Segment& segment, std::uint32_t portion, std::uint32_t thread,
                                Sums (&before)[kTurns]) const {
    UNWEIGHT_UNROLL
    for (Sums& sums : before) sums = {};
    for (std::uint32_t peer = segment.first_peer; peer < blockIdx.x; ++peer) {
      const float* partial =
          params.partial_sums + std::uint64_t{peer} * Traits::kItemSums + portion * Traits::kPortionSums;
      UNWEIGHT_UNROLL
      for (std::uint32_t turn = 0; turn < kTurns; ++turn) {
        const std::uint32_t first = first_sum(thread, turn);
        if (first >= Traits::kPortionSums) continue;
        Sums more;
        ptx::load_from_l2(more.value, partial + first);
        before[turn].add(more);
      }
    }
  }

  [[nodiscard]] __device__ Sums sum_of_warps(std::uint32_t first) const {
    const std::uint32_t strip = first / Traits::kStripPortionSums, in_strip = first % Traits::kStripPortionSums;
    Sums sum;
    UNWEIGHT_UNROLL
    for (std::uint32_t c = 0; c < Traits::kColTiles; ++c) {
      const std::uint32_t warp = strip * Traits::kColTiles + c;
      const auto* of_warp = reinterpret_cast<const float*>(shared + map.warps + warp * Traits::kWarpBytes);
      const Sums more = *reinterpret_cast<const Sums*>(of_warp + in_strip);
      if (c == 0) {
        sum = more;
      } else {
        sum.add(more);
      }
    }
    return sum;
  }

  /// In the order of a strip's sums four are one lane's of a token tile: two rows 8 apart x two tokens.
  __device__ void store_y(std::uint32_t item, std::uint32_t portion, std::uint32_t first, const Sums& sums) const {
    UNWEIGHT_UNROLL
    for (std::uint32_t k = 0; k < kWidth; ++k) {
      const std::uint32_t strip = first / Traits::kStripPortionSums, in_strip = first % Traits::kStripPortionSums;
      const std::uint32_t i = (first + k) % 4, l = in_strip / 4 % device::kLanes, t = in_strip / (4 * device::kLanes);
      const std::uint32_t row = item * Traits::kItemRows + strip * format::kTileRows + l / 4 + 8 * (i / 2);
      const std::uint32_t token = (portion * Traits::kPortionTiles + t) * 8 + 2 * (l & 3) + i % 2;
      if (row >= params.rows || token >= params.tokens) continue;
      float sum = sums.value[k];
      if (params.bias != nullptr) sum += device::float_of_bf16(params.bias[row]);
      params.y[token * params.y_stride + row] = device::round_to_bf16(sum);
    }
  }
};

}  // namespace unweight::sm90
