// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_large_batch.cuh: more than 64 tokens.
#pragma once

#include <cstdint>
#include <cuda/launch/costed_config.hpp>
#include <cuda_runtime_api.h>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// Loads the kernels on the current device and lets them have their shared memory.
[[nodiscard]] Result<void> load_large_batch();

/// As can_implement(), for a matrix within the kernels' limits.
[[nodiscard]] Result<void> large_batch_can_implement(const MatmulProblem& problem, const MatmulConfig& config);

/// As choose_matmul_config(), for a matrix that is not empty.
[[nodiscard]] CostedConfig choose_large_batch(const MatmulProblem& problem);

/// As matmul() for checked arguments and a configuration that large_batch_can_implement() accepts.
[[nodiscard]] Result<void> large_batch(const DeviceBlob& weight, const MatmulArguments& arguments,
                                       const MatmulConfig& config, cudaStream_t stream);

}  // namespace unweight::launch
