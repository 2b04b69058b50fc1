// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda_runtime_api.h>
#include <device_memory.hpp>
#include <failure.hpp>

namespace unweight::bench {

void FreeDevice::operator()(void* memory) const { cudaFree(memory); }

DeviceMemory allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocate");
  return DeviceMemory(memory);
}

void download_bytes(const DeviceMemory& memory, void* to, std::size_t bytes) {
  check(cudaMemcpy(to, memory.get(), bytes, cudaMemcpyDeviceToHost), "download");
}

std::size_t rotation_count(std::size_t bytes) { return std::max<std::size_t>(2, (kRotatedBytes + bytes - 1) / bytes); }

std::vector<DeviceMemory> upload_copies(std::span<const std::byte> bytes, std::size_t count) {
  std::vector<DeviceMemory> copies;
  for (std::size_t i = 0; i < count; ++i) {
    copies.push_back(allocate(bytes.size()));
    const bool first = i == 0;
    check(cudaMemcpy(copies.back().get(), first ? bytes.data() : copies.front().get(), bytes.size(),
                     first ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice),
          "upload");
  }
  return copies;
}

}  // namespace unweight::bench
