// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_decode.cuh.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// Whether the kernel's index arithmetic covers the shape: kInvalidArgument otherwise. `shape` is that of a tiled blob.
[[nodiscard]] Result<void> can_decode(const MatrixShape& shape);

/// Loads the kernel on the current device.
[[nodiscard]] Result<void> load_decode();

/// As unweight::decode() for a tiled blob and checked arguments.
[[nodiscard]] Result<void> decode_tiled(const DeviceBlob& blob, std::uint16_t* values, std::uint64_t row_stride,
                                        cudaStream_t stream);

}  // namespace unweight::launch
