// SPDX-License-Identifier: Apache-2.0
//
// cuBLASLt for the buckets of one weight: an algorithm and a second one for each, chosen once. Without a word of
// cuBLASLt's own headers, which a toolkit may lack.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unweight/cuda.hpp>
#include <unweight/pipelines.hpp>
#include <unweight/plan.hpp>
#include <vector>

namespace unweight::pipelines {

/// Version of the cuBLASLt that can be loaded; 0: none.
[[nodiscard]] std::uint64_t cublaslt_version();

/// Alignment of operands in bytes, and of extents and strides in values, that all algorithms here are chosen for.
inline constexpr std::uint32_t kDenseAlignment = 16, kDenseGranularity = 8;

/// Most workspace that an algorithm may take.
inline constexpr std::size_t kMostDenseWorkspace = std::size_t{32} << 20;

/// Whether cuBLASLt can multiply with matrices of this shape here.
[[nodiscard]] inline bool suits_dense(const MatrixShape& shape) {
  return shape.rows % kDenseGranularity == 0 && shape.cols % kDenseGranularity == 0;
}

class DenseBuckets {
 public:
  /// The algorithms that are wanted, by bucket.
  using Wanted = std::array<std::optional<CublasAlgorithm>, kTokenBuckets>;

  /// Checks each wanted algorithm for the ends of its bucket; where one does not do, the first proposal that does takes
  /// its place and `notes` says so. Buckets without any are left to the fused kernel.
  /// Errors: kCuda.
  [[nodiscard]] static Result<std::shared_ptr<const DenseBuckets>> create(const MatrixShape& shape,
                                                                          const Wanted& wanted,
                                                                          std::vector<std::string>& notes);

  virtual ~DenseBuckets() = default;
  [[nodiscard]] virtual std::size_t workspace_bytes() const noexcept = 0;
  /// Whether there is an algorithm for the bucket.
  [[nodiscard]] virtual bool has(std::uint32_t bucket) const noexcept = 0;
  /// Enqueues Y = X * values^T + bias. False, with nothing enqueued, where cuBLASLt refuses both algorithms.
  [[nodiscard]] virtual Result<bool> multiply(const std::uint16_t* values, const LinearArguments& arguments,
                                              void* workspace, cudaStream_t stream) const = 0;
};

}  // namespace unweight::pipelines
