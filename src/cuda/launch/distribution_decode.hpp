// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_distribution_decode.cuh and of transcoding.
#pragma once

#include <unweight/result.hpp>

namespace unweight::launch {

/// Loads the kernel on the current device.
[[nodiscard]] Result<void> load_distribution_decode();

/// Loads those of transcoding.
[[nodiscard]] Result<void> load_transcode();

}  // namespace unweight::launch
