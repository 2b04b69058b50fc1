// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/kernels/sm90_prefetch.cuh>
#include <cuda/launch/cuda_error.hpp>
#include <format/layout.hpp>
#include <new>
#include <unweight/cuda.hpp>

namespace unweight {

Result<void> prefetch_l2(const DeviceBlob& weight, std::uint64_t begin_byte, std::uint64_t size_bytes,
                         cudaStream_t stream) try {
  using Config = sm90::PrefetchConfig;
  // Whole sectors around the range. Blobs are multiples of 128 bytes, and so are their addresses.
  const std::uint64_t begin = std::min(begin_byte, weight.size_bytes()) / format::kAlignment * format::kAlignment;
  const std::uint64_t wanted = size_bytes + (std::min(begin_byte, weight.size_bytes()) - begin);
  const std::uint64_t bytes = std::min(weight.size_bytes() - begin, wanted < size_bytes ? UINT64_MAX : wanted);
  if (weight.data() == nullptr || size_bytes == 0 || bytes == 0) return {};
  cudaLaunchConfig_t launch{};
  launch.gridDim =
      dim3(static_cast<std::uint32_t>(format::ceil_div(bytes, std::uint64_t{Config::kThreads} * Config::kChunkBytes)));
  launch.blockDim = dim3(Config::kThreads);
  launch.stream = stream;
  const std::uint64_t whole =
      std::min(format::ceil_div(bytes, format::kAlignment) * format::kAlignment, weight.size_bytes() - begin);
  const cudaError_t error = cudaLaunchKernelEx(&launch, sm90::prefetch_kernel<Config>, weight.data() + begin, whole);
  if (error != cudaSuccess) return launch::cuda_failure(error, "prefetch: launch");
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
