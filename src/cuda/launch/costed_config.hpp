// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unweight/cuda.hpp>

namespace unweight::launch {

/// A configuration and how long it is expected to take, for comparisons between kernels.
struct CostedConfig {
  MatmulConfig config;
  double cycles = 0;  ///< of the multiprocessors that have most to do, a fit to measurements on an H200
};

/// The one that is expected to take less time; of two that take as long the one that does not split.
inline CostedConfig quicker(const CostedConfig& whole, const CostedConfig& split) {
  return split.cycles < whole.cycles ? split : whole;
}

}  // namespace unweight::launch
