// SPDX-License-Identifier: Apache-2.0
//
// Timing of device work: many launches captured into one CUDA graph, timed with events around its replay, so that the
// time is the device's and not that of the host's launches.
#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <functional>
#include <vector>

namespace unweight::bench {

/// A captured sequence of `launches` equal pieces of work.
class TimedGraph {
 public:
  /// Calls `enqueue(stream, i)` for i = 0 .. launches - 1 under capture.
  TimedGraph(int launches, const std::function<void(cudaStream_t, int)>& enqueue);
  TimedGraph(const TimedGraph&) = delete;
  TimedGraph& operator=(const TimedGraph&) = delete;
  ~TimedGraph();

  /// Replays once and appends microseconds a launch to samples_us().
  void run();
  [[nodiscard]] const std::vector<double>& samples_us() const { return samples_us_; }
  /// Forgets the samples: after a warm-up.
  void clear() { samples_us_.clear(); }

 private:
  int launches_;
  cudaStream_t stream_{};
  cudaGraph_t graph_{};
  cudaGraphExec_t replay_{};
  cudaEvent_t begin_{}, end_{};
  std::vector<double> samples_us_;
};

struct Spread {
  double median = 0, min = 0, max = 0;
};

/// How many launches a graph needs to last a few milliseconds, which is long beside the launch of the graph itself:
/// a multiple of `copies`, so that each of them is used equally often.
[[nodiscard]] int launches_for(double launch_us, std::size_t copies);

/// Requires at least one sample.
[[nodiscard]] Spread spread_of(std::vector<double> samples);

}  // namespace unweight::bench
