// SPDX-License-Identifier: Apache-2.0
//
// cuBLASLt's algorithms for one shape, as the tuner tries them.
#pragma once

#include <cstdint>
#include <memory>
#include <pipelines/dense.hpp>
#include <unweight/plan.hpp>
#include <vector>

namespace unweight::pipelines {

class DenseCandidates {
 public:
  /// How many proposals cuBLASLt is asked for.
  static constexpr std::uint32_t kProposals = 16;

  /// One without algorithms where cuBLASLt cannot be used. Errors: kCuda.
  [[nodiscard]] static Result<std::unique_ptr<DenseCandidates>> create(const MatrixShape& shape);

  virtual ~DenseCandidates() = default;
  [[nodiscard]] virtual Result<std::vector<CublasAlgorithm>> algorithms(std::uint32_t tokens) const = 0;
  /// Enqueues Y = X * values^T, all without gaps, with kMostDenseWorkspace bytes of workspace. Errors: kInvalidArgument
  /// where cuBLASLt refuses.
  [[nodiscard]] virtual Result<void> multiply(const CublasAlgorithm& algorithm, std::uint32_t tokens,
                                              const std::uint16_t* values, const std::uint16_t* x, std::uint16_t* y,
                                              void* workspace, cudaStream_t stream) const = 0;
};

}  // namespace unweight::pipelines
