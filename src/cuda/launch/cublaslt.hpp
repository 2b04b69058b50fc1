// SPDX-License-Identifier: Apache-2.0
//
// cuBLASLt, loaded when it is first needed: its functions by name.
#pragma once

#include <cublasLt.h>
#include <string>
#include <unweight/result.hpp>

namespace unweight::launch {

struct CublasLt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_string;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
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

}  // namespace unweight::launch
