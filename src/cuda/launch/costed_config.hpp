// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unweight/cuda.hpp>

namespace unweight::launch {

/// A configuration and how long it is expected to take, for comparisons between kernels.
struct CostedConfig {
  MatmulConfig config;
  double cycles = 0;  ///< of the multiprocessors that have most to do, a fit to measurements on an H200
};

}  // namespace unweight::launch
