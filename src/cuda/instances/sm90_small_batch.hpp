// SPDX-License-Identifier: Apache-2.0
//
// The compiled configurations of kernels/sm90_small_batch.cuh, one function a file of this folder.
#pragma once

#include <cstdint>
#include <cuda.h>
#include <cuda/device/small_batch_ring.cuh>
#include <vector>

namespace unweight::sm90 {

struct SmallBatchInstance {
  using Kernel = void (*)(SmallBatchParams, CUtensorMap x_map, CUtensorMap w_map);

  std::uint32_t strips, col_tiles, token_tiles;
  bool raw, warpgroup;
  std::uint32_t threads;
  Kernel kernel;
  std::uint32_t (*shared_bytes)(std::uint32_t stages, std::uint32_t parts);
};

/// In the order of their token tiles.
using SmallBatchInstances = std::vector<SmallBatchInstance>;

SmallBatchInstances small_batch_tiled_1();
SmallBatchInstances small_batch_tiled_2();
SmallBatchInstances small_batch_tiled_4();
SmallBatchInstances small_batch_raw_1();
SmallBatchInstances small_batch_raw_2();
SmallBatchInstances small_batch_raw_4();
SmallBatchInstances small_batch_tiled_warpgroup();
SmallBatchInstances small_batch_raw_warpgroup();

}  // namespace unweight::sm90
