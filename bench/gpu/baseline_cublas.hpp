// SPDX-License-Identifier: Apache-2.0
//
// The dense baseline: cublasGemmEx() and what cublasLt's heuristics propose.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <vector>

namespace unweight::bench {

/// Y[tokens, rows] = X[tokens, cols] * W[rows, cols]^T: all dense, bfloat16, summed in float.
struct DenseProblem {
  std::uint64_t rows, cols;
  std::uint32_t tokens;
  const void* x;
  void* y;
};

/// One way to compute a problem.
class DenseAlgorithm {
 public:
  DenseAlgorithm() = default;
  DenseAlgorithm(const DenseAlgorithm&) = delete;
  DenseAlgorithm& operator=(const DenseAlgorithm&) = delete;
  virtual ~DenseAlgorithm() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  /// Enqueues it with these weights; may be captured. False when the library refuses.
  [[nodiscard]] virtual bool enqueue(const void* weights, cudaStream_t stream) const = 0;
};

/// The library's handles, and a workspace that all its algorithms share: to be run one after the other.
class CublasBaseline {
 public:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
  static constexpr int kHeuristics = 16;

  CublasBaseline();
  CublasBaseline(const CublasBaseline&) = delete;
  CublasBaseline& operator=(const CublasBaseline&) = delete;
  ~CublasBaseline();

  /// "13.0.2"
  [[nodiscard]] std::string version() const;

  /// cublasGemmEx(), then the first kHeuristics proposals. They refer to this object.
  [[nodiscard]] std::vector<std::unique_ptr<DenseAlgorithm>> algorithms(const DenseProblem& problem) const;

 private:
  struct Handles;
  std::unique_ptr<Handles> handles_;
};

}  // namespace unweight::bench
