// SPDX-License-Identifier: Apache-2.0
//
// What the launchers of the multiplication kernels have in common.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <string>
#include <unweight/cuda.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// What a block may use on compute capability 9.0: 227 KiB.
inline constexpr std::uint32_t kSharedBytes = 232448;

inline std::string text(std::uint64_t value) { return std::to_string(value); }

inline tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, "matmul: " + why);
}

/// A grid, and what is special about it. Not to be copied: it points into itself.
class MatmulLaunch {
 public:
  MatmulLaunch(std::uint32_t blocks, std::uint32_t threads, std::uint32_t shared_bytes, cudaStream_t stream) {
    config_.gridDim = dim3(blocks);
    config_.blockDim = dim3(threads);
    config_.dynamicSmemBytes = shared_bytes;
    config_.stream = stream;
    config_.attrs = attributes_;
  }
  MatmulLaunch(const MatmulLaunch&) = delete;
  MatmulLaunch& operator=(const MatmulLaunch&) = delete;

  /// May begin while the kernel before it still runs.
  void set_dependent() {
    cudaLaunchAttribute& dependent = attributes_[config_.numAttrs++];
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
  }

  /// In clusters of so many blocks; 1: none.
  void set_cluster(std::uint32_t blocks) {
    if (blocks == 1) return;
    cudaLaunchAttribute& cluster = attributes_[config_.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = blocks;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }

  [[nodiscard]] const cudaLaunchConfig_t& config() const { return config_; }

 private:
  cudaLaunchConfig_t config_{};
  cudaLaunchAttribute attributes_[2]{};
};

}  // namespace unweight::launch
