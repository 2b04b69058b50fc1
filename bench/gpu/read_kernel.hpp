// SPDX-License-Identifier: Apache-2.0
//
// Kernels that only read, which is what a multiplication for few tokens is measured by, and one that does nothing.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <span>

namespace unweight::bench {

/// One way to read: by vector loads into registers, or by bulk copies into rings in shared memory.
struct ReadVariant {
  const char* name;
  void (*launch)(const void* from, std::size_t bytes, unsigned multiprocessors, cudaStream_t stream);
};

/// All of them. `bytes` must be a multiple of kReadGranularity; the address, of 128.
std::span<const ReadVariant> read_variants();
inline constexpr std::size_t kReadGranularity = 32768;

void launch_empty_kernel(cudaStream_t stream);

}  // namespace unweight::bench
