// SPDX-License-Identifier: Apache-2.0
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/current_device.hpp>
#include <string>
#include <unweight/cuda.hpp>

namespace unweight::launch {

Result<void> check_device_address(const void* address, const char* what) {
  const std::string begin = std::string(what) + ": ";
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  if (number % kDeviceBlobAlignment != 0) {
    return fail(ErrorCode::kInvalidArgument, begin + "address " + std::to_string(number) + " must be a multiple of " +
                                                 std::to_string(kDeviceBlobAlignment));
  }
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return cuda_failure(error, what);
  cudaPointerAttributes attributes{};
  if (const cudaError_t error = cudaPointerGetAttributes(&attributes, address); error != cudaSuccess) {
    return cuda_failure(error, begin + "attributes of its address");
  }
  if (attributes.devicePointer == nullptr) {
    return fail(ErrorCode::kInvalidArgument, begin + "its address is not device memory");
  }
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device) {
    return fail(ErrorCode::kInvalidArgument, begin + "lies on device " + std::to_string(attributes.device) +
                                                 ", the current device is " + std::to_string(device));
  }
  return {};
}

Result<std::uint32_t> multiprocessors() {
  int device = 0, count = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return cuda_failure(error, "count multiprocessors");
  return static_cast<std::uint32_t>(count);
}

}  // namespace unweight::launch
