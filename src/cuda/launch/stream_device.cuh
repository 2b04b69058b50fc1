// SPDX-License-Identifier: Apache-2.0
//
// Kernels and memory operations enqueued on a stream, one after the other, until one fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/kernels/sm90_distribution_decode.cuh>
#include <cuda/launch/cuda_error.hpp>
#include <cuda_runtime.h>
#include <string>

namespace unweight::launch {

class StreamDevice {
 public:
  StreamDevice(cudaStream_t stream, std::uint32_t multiprocessors, const char* what)
      : stream_(stream), multiprocessors_(multiprocessors), what_(what) {}

  void clear(void* memory, std::size_t bytes) {
    if (error_ == cudaSuccess) error_ = cudaMemsetAsync(memory, 0, bytes, stream_);
  }

  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), std::uint32_t grid, std::uint32_t threads, std::uint32_t shared_bytes,
              const Arguments&... arguments) {
    launch_with(false, kernel, grid, threads, shared_bytes, arguments...);
  }

  /// Likewise; it may begin while the kernel in front of it still runs, and waits for that itself. Nothing but a kernel
  /// may be in front of it.
  template <class... Parameters, class... Arguments>
  void launch_dependent(void (*kernel)(Parameters...), std::uint32_t grid, std::uint32_t threads,
                        std::uint32_t shared_bytes, const Arguments&... arguments) {
    launch_with(true, kernel, grid, threads, shared_bytes, arguments...);
  }

  /// Decodes blocks of a distribution blob of so many classes. One file compiles and launches that kernel: each file
  /// that names it would have a copy of its own, whose limit of shared memory nobody has raised.
  void decode(const sm90::DistributionDecodeParams& params, std::uint32_t class_count);

  [[nodiscard]] std::uint32_t multiprocessors() const { return multiprocessors_; }

  [[nodiscard]] Result<void> outcome() const {
    if (error_ != cudaSuccess) return cuda_failure(error_, std::string(what_) + ": launch");
    return {};
  }

 private:
  template <class... Parameters, class... Arguments>
  void launch_with(bool is_dependent, void (*kernel)(Parameters...), std::uint32_t grid, std::uint32_t threads,
                   std::uint32_t shared_bytes, const Arguments&... arguments) {
    if (error_ != cudaSuccess) return;
    cudaLaunchAttribute dependent{};
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(grid);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    config.attrs = &dependent;
    config.numAttrs = is_dependent ? 1 : 0;
    error_ = cudaLaunchKernelEx(&config, kernel, arguments...);
  }

  cudaStream_t stream_;
  std::uint32_t multiprocessors_;
  const char* what_;
  cudaError_t error_ = cudaSuccess;
};

}  // namespace unweight::launch
