// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_small_batch.cuh: up to 64 tokens, or 128 with items of 12 strips.
#pragma once

#include <cstdint>
#include <cuda/launch/costed_config.hpp>
#include <cuda_runtime_api.h>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// Loads the kernels on the current device and lets them have their shared memory.
[[nodiscard]] Result<void> load_small_batch();

/// As can_implement(), for a matrix within the kernels' limits.
[[nodiscard]] Result<void> small_batch_can_implement(const MatmulProblem& problem, const MatmulConfig& config);

/// As choose_matmul_config(), for a matrix that is not empty and up to 64 tokens.
[[nodiscard]] MatmulConfig choose_small_batch(const MatmulProblem& problem);

/// The best configuration of this kernel for 65 to 128 tokens of such a matrix.
[[nodiscard]] CostedConfig choose_wide_batch(const MatmulProblem& problem);

/// As matmul() for checked arguments and a configuration that small_batch_can_implement() accepts.
[[nodiscard]] Result<void> small_batch(const DeviceBlob& weight, const MatmulArguments& arguments,
                                       const MatmulConfig& config, cudaStream_t stream);

}  // namespace unweight::launch
