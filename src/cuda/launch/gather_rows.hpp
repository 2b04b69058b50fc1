// SPDX-License-Identifier: Apache-2.0
//
// Host side of kernels/sm90_gather_rows.cuh.
#pragma once

#include <unweight/result.hpp>

namespace unweight::launch {

/// Loads the kernel on the current device.
[[nodiscard]] Result<void> load_gather_rows();

}  // namespace unweight::launch
