// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>
#include <functional>
#include <memory>
#include <tune/bench.hpp>

namespace unweight::pipelines {

/// Many launches captured into one CUDA graph, timed with events around its replay: the device's time, not the host's.
class GraphStopwatch final : public tune::Stopwatch {
 public:
  /// Enqueues launch number i.
  using Enqueue = std::function<Result<void>(std::size_t launch, cudaStream_t stream)>;

  /// Captures launches 0 to `launches` - 1 on `stream`, which the replays use, too.
  [[nodiscard]] static Result<std::unique_ptr<tune::Stopwatch>> capture(std::size_t launches, const Enqueue& enqueue,
                                                                        cudaStream_t stream);
  GraphStopwatch(std::size_t launches, cudaStream_t stream) : launches_(launches), stream_(stream) {}
  ~GraphStopwatch() override;

  [[nodiscard]] Result<double> sample_us() override;

 private:
  [[nodiscard]] Result<void> record(const Enqueue& enqueue);

  std::size_t launches_;
  cudaStream_t stream_;
  cudaGraphExec_t replay_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace unweight::pipelines
