// SPDX-License-Identifier: Apache-2.0
#include <cuda/instances/sm90_small_batch.cuh>

namespace unweight::sm90 {

SmallBatchInstances small_batch_raw_warpgroup() { return small_batch_warpgroup_instances<true>(); }

}  // namespace unweight::sm90
