// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_distribution_decode.cuh and of transcoding.
#pragma once

#include <cuda/launch/distribution_params.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// The kernel's warps: as many as a multiprocessor holds with 64 registers a thread.
using DistributionDecode = sm90::DistributionDecodeConfig<32>;

/// Loads the kernel on the current device.
[[nodiscard]] Result<void> load_distribution_decode();

/// Loads those of transcoding.
[[nodiscard]] Result<void> load_transcode();

}  // namespace unweight::launch
