// SPDX-License-Identifier: Apache-2.0
#include <cuda/instances/sm90_small_batch.cuh>

namespace unweight::sm90 {

SmallBatchInstances small_batch_tiled_warpgroup() { return small_batch_warpgroup_instances<false>(); }

}  // namespace unweight::sm90
