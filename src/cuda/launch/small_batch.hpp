// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_small_batch.cuh.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// Multiprocessors of the current device.
[[nodiscard]] Result<std::uint32_t> multiprocessors();

/// Loads the kernels on the current device and lets them have their shared memory.
[[nodiscard]] Result<void> load_small_batch();

/// As unweight::matmul() for checked arguments and a configuration that can_implement() accepts.
[[nodiscard]] Result<void> small_batch(const DeviceBlob& weight, const MatmulArguments& arguments,
                                       const MatmulConfig& config, cudaStream_t stream);

}  // namespace unweight::launch
