// SPDX-License-Identifier: Apache-2.0
//
// What other programs call: cublasGemmEx(), to compare with. Loaded like cuBLASLt, and missing without harm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>

namespace unweight::pipelines {

class CublasBaseline {
 public:
  /// Null where there is no cuBLAS. Errors: kCuda.
  [[nodiscard]] static Result<std::unique_ptr<CublasBaseline>> create();

  virtual ~CublasBaseline() = default;
  /// Enqueues Y[tokens, rows] = X[tokens, cols] * W[rows, cols]^T, all without gaps. Errors: kInvalidArgument where
  /// cuBLAS refuses.
  [[nodiscard]] virtual Result<void> multiply(const MatrixShape& shape, std::uint32_t tokens, const void* weights,
                                              const void* x, void* y, void* workspace, std::size_t workspace_bytes,
                                              cudaStream_t stream) const = 0;
};

}  // namespace unweight::pipelines
