// SPDX-License-Identifier: Apache-2.0
//
// The compiled configurations of kernels/sm90_large_batch.cuh, one function a file of this folder.
#pragma once

#include <cstdint>
#include <cuda.h>
#include <cuda/device/large_batch_block.cuh>
#include <vector>

namespace unweight::sm90 {

struct LargeBatchInstance {
  using Kernel = void (*)(LargeBatchParams, CUtensorMap x_map, CUtensorMap w_map);

  std::uint32_t tokens;
  bool raw;
  std::uint32_t threads, shared_bytes;
  Kernel kernel;
};

std::vector<LargeBatchInstance> large_batch_tiled();
std::vector<LargeBatchInstance> large_batch_raw();

}  // namespace unweight::sm90
