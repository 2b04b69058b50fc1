// SPDX-License-Identifier: Apache-2.0
//
// A plain vectorised copy: with cudaMemcpyAsync(), what memory bandwidth is measured by.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <span>

namespace unweight::bench {

/// One way to copy: threads a block, 16-byte vectors a thread (loaded before any is stored), and cache hints.
struct CopyVariant {
  const char* name;
  void (*launch)(const void* from, void* to, std::size_t bytes, cudaStream_t stream);
};

/// All of them. `bytes` must be a multiple of 16, and so must the addresses.
std::span<const CopyVariant> copy_variants();

}  // namespace unweight::bench
