// SPDX-License-Identifier: Apache-2.0
//
// Asks for a range of global memory in the L2 cache. One thread a chunk; nothing is read into the multiprocessor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/ptx/copy.cuh>

namespace unweight::sm90 {

struct PrefetchConfig {
  static constexpr std::uint32_t kThreads = 64;
  static constexpr std::uint32_t kChunkBytes = 8192;
};

/// `begin` is aligned to 16, `size_bytes` a multiple of 16.
template <class Config>
__global__ void __launch_bounds__(Config::kThreads) prefetch_kernel(const std::byte* begin, std::uint64_t size_bytes) {
  const std::uint64_t at = (std::uint64_t{blockIdx.x} * Config::kThreads + threadIdx.x) * Config::kChunkBytes;
  if (at >= size_bytes) return;
  const std::uint64_t left = size_bytes - at;
  ptx::prefetch_l2(begin + at, static_cast<std::uint32_t>(left < Config::kChunkBytes ? left : Config::kChunkBytes));
}

}  // namespace unweight::sm90
