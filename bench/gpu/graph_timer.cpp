// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <failure.hpp>
#include <graph_timer.hpp>

namespace unweight::bench {

TimedGraph::TimedGraph(int launches, const std::function<void(cudaStream_t, int)>& enqueue) : launches_(launches) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream");
  check(cudaEventCreate(&begin_), "create an event");
  check(cudaEventCreate(&end_), "create an event");
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "begin capture");
  for (int i = 0; i < launches; ++i) enqueue(stream_, i);
  check(cudaStreamEndCapture(stream_, &graph_), "end capture");
  check(cudaGraphInstantiate(&replay_, graph_, 0), "instantiate a graph");
}

TimedGraph::~TimedGraph() {
  cudaGraphExecDestroy(replay_);
  cudaGraphDestroy(graph_);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

void TimedGraph::run() {
  check(cudaEventRecord(begin_, stream_), "record");
  check(cudaGraphLaunch(replay_, stream_), "replay");
  check(cudaEventRecord(end_, stream_), "record");
  check(cudaEventSynchronize(end_), "replay");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin_, end_), "elapsed time");
  samples_us_.push_back(1000.0 * static_cast<double>(ms) / launches_);
}

int launches_for(double launch_us, std::size_t copies) {
  constexpr double kGraphUs = 3000;
  const auto count = static_cast<double>(copies);
  return static_cast<int>(count * std::max(1.0, std::ceil(kGraphUs / launch_us / count)));
}

Spread spread_of(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  return {samples[samples.size() / 2], samples.front(), samples.back()};
}

}  // namespace unweight::bench
