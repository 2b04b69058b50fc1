// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda/instances/sm90_large_batch.hpp>
#include <cuda/kernels/sm90_large_batch.cuh>

namespace unweight::sm90 {

template <class Config>
LargeBatchInstance large_batch_instance() {
  using Traits = LargeBatchTraits<Config>;
  return {Config::kTokens, Config::kRaw, Traits::kThreads, LargeBatchMap<Config>::kBytes, large_batch_kernel<Config>};
}

template <bool Raw>
std::vector<LargeBatchInstance> large_batch_instances() {
  return {large_batch_instance<LargeBatchConfig<128, Raw>>(), large_batch_instance<LargeBatchConfig<256, Raw>>()};
}

}  // namespace unweight::sm90
