// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda/instances/sm90_small_batch.hpp>
#include <cuda/kernels/sm90_small_batch.cuh>

namespace unweight::sm90 {

template <class Config>
SmallBatchInstance small_batch_instance() {
  return {Config::kStrips,
          SmallBatchTraits<Config>::kColTiles,
          Config::kTokenTiles,
          Config::kRaw,
          Config::kWarpgroup,
          SmallBatchTraits<Config>::kThreads,
          small_batch_kernel<Config>,
          [](std::uint32_t stages, std::uint32_t parts) { return SmallBatchMap<Config>(stages, parts).size; }};
}

template <std::uint32_t Strips, bool Raw>
SmallBatchInstances small_batch_instances() {
  return {small_batch_instance<SmallBatchConfig<Strips, 1, Raw>>(),
          small_batch_instance<SmallBatchConfig<Strips, 2, Raw>>(),
          small_batch_instance<SmallBatchConfig<Strips, 4, Raw>>()};
}

template <bool Raw>
SmallBatchInstances small_batch_warpgroup_instances() {
  return {small_batch_instance<SmallBatchConfig<4, 4, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<4, 8, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<8, 4, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<8, 8, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<12, 16, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<16, 4, Raw, true>>(),
          small_batch_instance<SmallBatchConfig<16, 8, Raw, true>>()};
}

}  // namespace unweight::sm90
