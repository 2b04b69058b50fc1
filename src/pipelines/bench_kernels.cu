// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <pipelines/bench_kernels.hpp>
#include <pipelines/device_buffer.hpp>

namespace unweight::pipelines {
namespace {

constexpr unsigned kThreads = 256;

unsigned blocks_for(std::size_t values) {
  constexpr std::size_t kMostBlocks = 4096;
  return static_cast<unsigned>(std::clamp<std::size_t>((values + kThreads - 1) / kThreads, 1, kMostBlocks));
}

__device__ std::size_t first_index() { return blockIdx.x * std::size_t{kThreads} + threadIdx.x; }
__device__ std::size_t step() { return gridDim.x * std::size_t{kThreads}; }

__global__ void count_kernel(const std::uint16_t* found, const std::uint16_t* expected, std::size_t values,
                             unsigned long long* different) {
  unsigned own = 0;
  for (std::size_t i = first_index(); i < values; i += step()) own += found[i] != expected[i] ? 1 : 0;
  own = __reduce_add_sync(~0U, own);
  if (threadIdx.x % 32 == 0 && own != 0) atomicAdd(different, own);
}

__global__ void gather_kernel(const std::uint16_t* values, const std::uint64_t* places, std::uint32_t count,
                              std::uint16_t* out) {
  for (std::size_t i = first_index(); i < count; i += step()) out[i] = values[places[i]];
}

__global__ void repeat_kernel(const std::uint16_t* pattern, std::size_t pattern_values, std::uint16_t* out,
                              std::size_t values) {
  for (std::size_t i = first_index(); i < values; i += step()) out[i] = pattern[i % pattern_values];
}

}  // namespace

Result<void> count_differences(const std::uint16_t* found, const std::uint16_t* expected, std::size_t values,
                               unsigned long long* different, cudaStream_t stream) {
  count_kernel<<<blocks_for(values), kThreads, 0, stream>>>(found, expected, values, different);
  return cuda_check(cudaGetLastError(), "compare results");
}

Result<void> gather(const std::uint16_t* values, const std::uint64_t* places, std::uint32_t count, std::uint16_t* out,
                    cudaStream_t stream) {
  gather_kernel<<<blocks_for(count), kThreads, 0, stream>>>(values, places, count, out);
  return cuda_check(cudaGetLastError(), "gather results");
}

Result<void> repeat(const std::uint16_t* pattern, std::size_t pattern_values, std::uint16_t* out, std::size_t values,
                    cudaStream_t stream) {
  repeat_kernel<<<blocks_for(values), kThreads, 0, stream>>>(pattern, pattern_values, out, values);
  return cuda_check(cudaGetLastError(), "repeat values");
}

}  // namespace unweight::pipelines
