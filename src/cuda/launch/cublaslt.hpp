// SPDX-License-Identifier: Apache-2.0
//
// cuBLASLt, loaded when it is first needed: its functions by name, and multiplications by its algorithms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cublasLt.h>
#include <memory>
#include <string>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::launch {

struct CublasLt {
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoCheck) algorithm_check;
  decltype(&cublasLtMatmulDescInit_internal) desc_init;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutInit_internal) layout_init;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  /// The library, which stays loaded. kCuda with the loader's message where there is none.
  static Result<const CublasLt*> get();

  /// kCuda, unless the status is a success.
  [[nodiscard]] Result<void> check(cublasStatus_t status, const std::string& what) const {
    if (status == CUBLAS_STATUS_SUCCESS) return {};
    return fail(ErrorCode::kCuda, "cuBLASLt: " + what + ": " + status_string(status));
  }
};

/// Y[tokens, rows] = X[tokens, cols] * W[rows, cols]^T + bias[rows]: W dense, all bfloat16, sums in float.
struct DenseProblem {
  std::uint64_t rows = 0, cols = 0;
  std::uint32_t tokens = 0;
  std::uint64_t x_stride = 0, y_stride = 0;  ///< in values
  bool has_bias = false;
  std::uint32_t multiprocessors = 0;  ///< that the multiplication is to use; 0: all
};

/// How cuBLASLt is told. No memory but its own: it may be made on the stack, also while a stream is captured.
struct DenseCall {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t w, x, y;
};
[[nodiscard]] Result<DenseCall> describe_call(const CublasLt& lt, const DenseProblem& problem);

/// A handle of the current device.
class DenseMultiplier {
 public:
  /// One for all that ask while somebody holds it. Not while a stream of this thread is captured.
  [[nodiscard]] static Result<std::shared_ptr<const DenseMultiplier>> get();

  DenseMultiplier(const CublasLt& lt, cublasLtHandle_t handle) : lt_(lt), handle_(handle) {}
  DenseMultiplier(const DenseMultiplier&) = delete;
  DenseMultiplier& operator=(const DenseMultiplier&) = delete;
  ~DenseMultiplier() { lt_.destroy(handle_); }

  [[nodiscard]] const CublasLt& lt() const { return lt_; }

  /// cuBLASLt's proposals, from the best on by its own estimate. Alignments in bytes.
  [[nodiscard]] Result<std::vector<cublasLtMatmulAlgo_t>> proposals(const DenseCall& call, std::uint32_t most,
                                                                    std::size_t workspace_bytes,
                                                                    std::uint32_t x_alignment,
                                                                    std::uint32_t y_alignment) const;

  /// Bytes of workspace that the algorithm needs for the call; kInvalidArgument where it cannot do it.
  [[nodiscard]] Result<std::size_t> check(const DenseCall& call, const cublasLtMatmulAlgo_t& algorithm) const;

  struct Operands {
    const void* weights;
    const void* x;
    void* y;
    const void* bias;  ///< or null, as the call says
    void* workspace;
    std::size_t workspace_bytes;
  };
  /// Enqueues. A call that cuBLASLt refuses leaves nothing on the stream.
  [[nodiscard]] cublasStatus_t multiply(DenseCall& call, const cublasLtMatmulAlgo_t& algorithm,
                                        const Operands& operands, cudaStream_t stream) const;

 private:
  const CublasLt& lt_;
  cublasLtHandle_t handle_;
};

}  // namespace unweight::launch
