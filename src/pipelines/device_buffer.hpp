// SPDX-License-Identifier: Apache-2.0
//
// Device memory for measuring. Nothing on the way of a multiplication allocates.
#pragma once

#include <cstddef>
#include <cuda/launch/cuda_error.hpp>
#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <unweight/result.hpp>

namespace unweight::pipelines {

/// The library's error for a failed call; nothing for a success.
[[nodiscard]] inline Result<void> cuda_check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return fail(ErrorCode::kOutOfMemory, std::string(what) + ": the device has no memory for it");
  }
  return launch::cuda_failure(error, what);
}

struct FreeDeviceMemory {
  void operator()(void* memory) const { cudaFree(memory); }
};
using DeviceBuffer = std::unique_ptr<void, FreeDeviceMemory>;

[[nodiscard]] inline Result<DeviceBuffer> allocate_device(std::size_t bytes, const char* what) {
  void* memory = nullptr;
  if (auto ok = cuda_check(cudaMalloc(&memory, bytes), what); !ok) return tl::unexpected(ok.error());
  return DeviceBuffer(memory);
}

}  // namespace unweight::pipelines
