// SPDX-License-Identifier: Apache-2.0
#include <io/try.hpp>
#include <pipelines/device_buffer.hpp>
#include <pipelines/graph_stopwatch.hpp>

namespace unweight::pipelines {

GraphStopwatch::~GraphStopwatch() {
  if (replay_ != nullptr) cudaGraphExecDestroy(replay_);
  if (begin_ != nullptr) cudaEventDestroy(begin_);
  if (end_ != nullptr) cudaEventDestroy(end_);
}

Result<std::unique_ptr<tune::Stopwatch>> GraphStopwatch::capture(std::size_t launches, const Enqueue& enqueue,
                                                                 cudaStream_t stream) {
  auto stopwatch = std::make_unique<GraphStopwatch>(launches, stream);
  UNWEIGHT_TRY(stopwatch->record(enqueue));
  return stopwatch;
}

Result<void> GraphStopwatch::record(const Enqueue& enqueue) {
  UNWEIGHT_TRY(cuda_check(cudaEventCreate(&begin_), "tune: make an event"));
  UNWEIGHT_TRY(cuda_check(cudaEventCreate(&end_), "tune: make an event"));
  UNWEIGHT_TRY(cuda_check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "tune: begin capture"));
  Result<void> enqueued;
  for (std::size_t launch = 0; launch < launches_ && enqueued; ++launch) enqueued = enqueue(launch, stream_);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);  // also after an error, or the stream is of no use
  const std::unique_ptr<CUgraph_st, cudaError_t (*)(cudaGraph_t)> owned(graph, cudaGraphDestroy);
  UNWEIGHT_TRY(enqueued);
  UNWEIGHT_TRY(cuda_check(ended, "tune: end capture"));
  return cuda_check(cudaGraphInstantiate(&replay_, graph, 0), "tune: instantiate a graph");
}

Result<double> GraphStopwatch::sample_us() {
  UNWEIGHT_TRY(cuda_check(cudaEventRecord(begin_, stream_), "tune: record"));
  UNWEIGHT_TRY(cuda_check(cudaGraphLaunch(replay_, stream_), "tune: replay"));
  UNWEIGHT_TRY(cuda_check(cudaEventRecord(end_, stream_), "tune: record"));
  UNWEIGHT_TRY(cuda_check(cudaEventSynchronize(end_), "tune: replay"));
  float ms = 0;
  UNWEIGHT_TRY(cuda_check(cudaEventElapsedTime(&ms, begin_, end_), "tune: elapsed time"));
  return 1000.0 * static_cast<double>(ms) / static_cast<double>(launches_);
}

}  // namespace unweight::pipelines
