// SPDX-License-Identifier: Apache-2.0
//
// The current CUDA device as loading sees it: a stream of copies, a stream of transcodings.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <deque>
#include <io/load_device.hpp>
#include <memory>
#include <unweight/distribution_cuda.hpp>
#include <vector>

namespace unweight::loader {

class CudaLoadDevice final : public io::LoadDevice {
 public:
  [[nodiscard]] static Result<std::unique_ptr<CudaLoadDevice>> create();
  ~CudaLoadDevice() override;

  [[nodiscard]] Result<std::byte*> allocate_host(std::uint64_t size_bytes) override;
  [[nodiscard]] Result<std::byte*> allocate(std::uint64_t size_bytes) override;
  [[nodiscard]] Result<void> copy(std::byte* to, std::span<const std::byte> from) override;
  [[nodiscard]] Result<std::uint64_t> latest_copy() override { return copies_; }
  [[nodiscard]] Result<bool> is_copied(std::uint64_t number, bool wait) override;
  [[nodiscard]] Result<std::uint64_t> workspace_bytes(const MatrixShape& shape, std::uint64_t slab_bytes) override;
  [[nodiscard]] Result<std::unique_ptr<io::Transcoding>> transcode(std::span<const std::byte> front,
                                                                   const std::byte* blob, std::byte* workspace,
                                                                   std::uint64_t slab_bytes) override;

 private:
  CudaLoadDevice() = default;

  cudaStream_t copy_stream_ = nullptr;
  cudaStream_t transcode_stream_ = nullptr;
  cudaEvent_t transcoded_ = nullptr;
  distribution::TranscodeOutcome* outcome_ = nullptr;  ///< page-locked
  std::vector<void*> host_memory_;
  std::vector<void*> device_memory_;
  std::uint64_t copies_ = 0;               ///< enqueued
  std::uint64_t copied_ = 0;               ///< done
  std::deque<cudaEvent_t> copy_events_;    ///< of the copies after `copied_`
  std::vector<cudaEvent_t> spare_events_;  ///< to be used again
};

}  // namespace unweight::loader
