// SPDX-License-Identifier: Apache-2.0
#include <pipelines/cublas_baseline.hpp>
#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
#include <dlfcn.h>
#include <string>

namespace unweight::pipelines {
namespace {

/// The header overloads the name.
using GemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                  const void* alpha, const void* a, cudaDataType, int lda, const void* b, cudaDataType,
                                  int ldb, const void* beta, void* c, cudaDataType, int ldc, cublasComputeType_t,
                                  cublasGemmAlgo_t);

struct Functions {
  decltype(&cublasCreate_v2) create;
  decltype(&cublasDestroy_v2) destroy;
  decltype(&cublasSetStream_v2) set_stream;
  decltype(&cublasSetWorkspace_v2) set_workspace;
  GemmEx gemm;
};

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

class Loaded final : public CublasBaseline {
 public:
  Loaded(const Functions& functions, cublasHandle_t handle) : functions_(functions), handle_(handle) {}
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded() override { functions_.destroy(handle_); }

  [[nodiscard]] Result<void> multiply(const MatrixShape& shape, std::uint32_t tokens, const void* weights,
                                      const void* x, void* y, void* workspace, std::size_t workspace_bytes,
                                      cudaStream_t stream) const override {
    constexpr float kOne = 1, kZero = 0;
    const int n = static_cast<int>(shape.rows), k = static_cast<int>(shape.cols), m = static_cast<int>(tokens);
    cublasStatus_t status = functions_.set_stream(handle_, stream);  // forgets the workspace
    if (status == CUBLAS_STATUS_SUCCESS) status = functions_.set_workspace(handle_, workspace, workspace_bytes);
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = functions_.gemm(handle_, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &kOne, weights, CUDA_R_16BF, k, x,
                               CUDA_R_16BF, k, &kZero, y, CUDA_R_16BF, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    }
    if (status == CUBLAS_STATUS_SUCCESS) return {};
    return fail(ErrorCode::kInvalidArgument, "cublasGemmEx: status " + std::to_string(status));
  }

 private:
  Functions functions_;
  cublasHandle_t handle_;
};

}  // namespace

Result<std::unique_ptr<CublasBaseline>> CublasBaseline::create() {
  const std::string name = "libcublas.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  Functions functions{};
  if (library == nullptr || !find(library, "cublasCreate_v2", functions.create) ||
      !find(library, "cublasDestroy_v2", functions.destroy) ||
      !find(library, "cublasSetStream_v2", functions.set_stream) ||
      !find(library, "cublasSetWorkspace_v2", functions.set_workspace) ||
      !find(library, "cublasGemmEx", functions.gemm)) {
    return nullptr;
  }
  cublasHandle_t handle = nullptr;
  if (const cublasStatus_t status = functions.create(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return fail(ErrorCode::kCuda, "cuBLAS: make a handle: status " + std::to_string(status));
  }
  return std::make_unique<Loaded>(functions, handle);
}

}  // namespace unweight::pipelines
#else  // a toolkit without cuBLAS

namespace unweight::pipelines {

Result<std::unique_ptr<CublasBaseline>> CublasBaseline::create() { return nullptr; }

}  // namespace unweight::pipelines
#endif
