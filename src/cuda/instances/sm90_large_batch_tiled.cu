// SPDX-License-Identifier: Apache-2.0
#include <cuda/instances/sm90_large_batch.cuh>

namespace unweight::sm90 {

std::vector<LargeBatchInstance> large_batch_tiled() { return large_batch_instances<false>(); }

}  // namespace unweight::sm90
