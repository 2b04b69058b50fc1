// SPDX-License-Identifier: Apache-2.0
//
// The compiled configurations of kernels/sm90_small_batch.cuh, one function a file of this folder.
#pragma once

#include <array>
#include <cstdint>
#include <cuda.h>
#include <cuda/device/small_batch_ring.cuh>

namespace unweight::sm90 {

struct SmallBatchInstance {
  using Kernel = void (*)(SmallBatchParams, CUtensorMap x_map, CUtensorMap raw_map);

  std::uint32_t strips, token_tiles;
  bool raw;
  std::uint32_t threads;
  Kernel kernel;
  std::uint32_t (*shared_bytes)(std::uint32_t stages);
};

/// For 1, 2, 4 and 8 tiles of 8 tokens.
using SmallBatchInstances = std::array<SmallBatchInstance, 4>;

SmallBatchInstances small_batch_tiled_1();
SmallBatchInstances small_batch_tiled_2();
SmallBatchInstances small_batch_tiled_4();
SmallBatchInstances small_batch_raw_1();
SmallBatchInstances small_batch_raw_2();
SmallBatchInstances small_batch_raw_4();

}  // namespace unweight::sm90
