// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <copy_kernel.hpp>

namespace unweight::bench {
namespace {

/// Each block copies one contiguous piece of kThreads * kVectors vectors.
template <unsigned kThreads, unsigned kVectors, bool kStreaming>
__global__ void __launch_bounds__(kThreads) copy_kernel(const uint4* from, uint4* to, std::size_t count) {
  const std::size_t first = std::size_t{blockIdx.x} * kThreads * kVectors + threadIdx.x;
  uint4 values[kVectors];
#pragma unroll
  for (unsigned i = 0; i < kVectors; ++i) {
    const std::size_t at = first + i * kThreads;
    if (at < count) values[i] = kStreaming ? __ldcs(from + at) : from[at];
  }
#pragma unroll
  for (unsigned i = 0; i < kVectors; ++i) {
    const std::size_t at = first + i * kThreads;
    if (at >= count) return;
    if constexpr (kStreaming) {
      __stcs(to + at, values[i]);
    } else {
      to[at] = values[i];
    }
  }
}

template <unsigned kThreads, unsigned kVectors, bool kStreaming>
void launch(const void* from, void* to, std::size_t bytes, cudaStream_t stream) {
  const std::size_t count = bytes / sizeof(uint4), per_block = kThreads * kVectors;
  copy_kernel<kThreads, kVectors, kStreaming>
      <<<static_cast<unsigned>((count + per_block - 1) / per_block), kThreads, 0, stream>>>(
          static_cast<const uint4*>(from), static_cast<uint4*>(to), count);
}

constexpr std::array<CopyVariant, 6> kVariants = {{
    {"kernel, 256 threads x 4 vectors", launch<256, 4, false>},
    {"kernel, 256 threads x 4 vectors, streaming", launch<256, 4, true>},
    {"kernel, 512 threads x 2 vectors", launch<512, 2, false>},
    {"kernel, 512 threads x 2 vectors, streaming", launch<512, 2, true>},
    {"kernel, 256 threads x 8 vectors", launch<256, 8, false>},
    {"kernel, 1024 threads x 4 vectors", launch<1024, 4, false>},
}};

}  // namespace

std::span<const CopyVariant> copy_variants() { return kVariants; }

}  // namespace unweight::bench
