// SPDX-License-Identifier: Apache-2.0
//
// What a figure depends on and a results file must therefore say.
#pragma once

#include <graph_timer.hpp>
#include <string>

namespace unweight::bench {

struct DeviceFacts {
  std::string name;
  std::string driver;        ///< as nvidia-smi prints it; empty where there is none
  std::string cuda_driver;   ///< the CUDA version that the driver supports
  std::string cuda_runtime;  ///< the one linked
  int multiprocessors = 0;
  int l2_bytes = 0;
  std::string max_clocks;  ///< "SM MHz, memory MHz"
};

[[nodiscard]] DeviceFacts device_facts();

/// Clocks and power as nvidia-smi prints them while `graph` is replayed: "SM MHz, memory MHz, W, C".
[[nodiscard]] std::string clocks_under_load(TimedGraph& graph);

}  // namespace unweight::bench
