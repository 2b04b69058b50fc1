// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <baseline_cublas.hpp>
#include <cublasLt.h>
#include <cublas_v2.h>
#include <device_memory.hpp>
#include <failure.hpp>
#include <fmt/format.h>

namespace unweight::bench {

struct CublasBaseline::Handles {
  cublasHandle_t cublas = nullptr;
  cublasLtHandle_t lt = nullptr;
  DeviceMemory workspace;
};

namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    stop(Error{ErrorCode::kCuda, fmt::format("{}: {}", what, cublasGetStatusString(status))});
  }
}

constexpr float kOne = 1, kZero = 0;

// The library's matrices are column-major: there the problem is Y^T = (W^T)^T * X^T.

class GemmEx final : public DenseAlgorithm {
 public:
  GemmEx(cublasHandle_t handle, void* workspace, const DenseProblem& problem)
      : handle_(handle), workspace_(workspace), problem_(problem) {}

  [[nodiscard]] std::string name() const override { return "cublasGemmEx"; }

  [[nodiscard]] bool enqueue(const void* weights, cudaStream_t stream) const override {
    const int n = static_cast<int>(problem_.rows), k = static_cast<int>(problem_.cols);
    const int m = static_cast<int>(problem_.tokens);
    check_cublas(cublasSetStream(handle_, stream), "set the stream of cuBLAS");  // and forgets the workspace
    check_cublas(cublasSetWorkspace(handle_, workspace_, CublasBaseline::kWorkspaceBytes), "set its workspace");
    return cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, n, m, k, &kOne, weights, CUDA_R_16BF, k, problem_.x,
                        CUDA_R_16BF, k, &kZero, problem_.y, CUDA_R_16BF, n, CUBLAS_COMPUTE_32F,
                        CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  cublasHandle_t handle_;
  void* workspace_;
  DenseProblem problem_;
};

/// The descriptors of one problem.
struct LtProblem {
  explicit LtProblem(const DenseProblem& problem) : dense(problem) {
    check_cublas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a multiplication");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check_cublas(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
                 "describe a multiplication");
    const auto n = static_cast<std::int64_t>(problem.rows), k = static_cast<std::int64_t>(problem.cols);
    const auto layout = [](cublasLtMatrixLayout_t* out, std::int64_t rows, std::uint64_t cols) {
      check_cublas(cublasLtMatrixLayoutCreate(out, CUDA_R_16BF, static_cast<std::uint64_t>(rows), cols, rows),
                   "describe a matrix");
    };
    layout(&w, k, problem.rows);
    layout(&x, k, problem.tokens);
    layout(&y, n, problem.tokens);
  }
  LtProblem(const LtProblem&) = delete;
  LtProblem& operator=(const LtProblem&) = delete;
  ~LtProblem() {
    cublasLtMatrixLayoutDestroy(y);
    cublasLtMatrixLayoutDestroy(x);
    cublasLtMatrixLayoutDestroy(w);
    cublasLtMatmulDescDestroy(operation);
  }

  DenseProblem dense;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
};

class LtAlgorithm final : public DenseAlgorithm {
 public:
  LtAlgorithm(cublasLtHandle_t handle, void* workspace, std::shared_ptr<const LtProblem> problem, int rank,
              const cublasLtMatmulAlgo_t& algorithm)
      : handle_(handle), workspace_(workspace), problem_(std::move(problem)), rank_(rank), algorithm_(algorithm) {}

  [[nodiscard]] std::string name() const override {
    return fmt::format("cublasLt[{}] algo {} tile {} stages {} split {}", rank_, member(CUBLASLT_ALGO_CONFIG_ID),
                       member(CUBLASLT_ALGO_CONFIG_TILE_ID), member(CUBLASLT_ALGO_CONFIG_STAGES_ID),
                       member(CUBLASLT_ALGO_CONFIG_SPLITK_NUM));
  }

  [[nodiscard]] bool enqueue(const void* weights, cudaStream_t stream) const override {
    const LtProblem& p = *problem_;
    return cublasLtMatmul(handle_, p.operation, &kOne, weights, p.w, p.dense.x, p.x, &kZero, p.dense.y, p.y, p.dense.y,
                          p.y, &algorithm_, workspace_, CublasBaseline::kWorkspaceBytes,
                          stream) == CUBLAS_STATUS_SUCCESS;
  }

 private:
  [[nodiscard]] int member(cublasLtMatmulAlgoConfigAttributes_t which) const {
    int value = 0;
    std::size_t written = 0;
    const auto status = cublasLtMatmulAlgoConfigGetAttribute(&algorithm_, which, &value, sizeof value, &written);
    return status == CUBLAS_STATUS_SUCCESS ? value : -1;
  }

  cublasLtHandle_t handle_;
  void* workspace_;
  std::shared_ptr<const LtProblem> problem_;
  int rank_;
  cublasLtMatmulAlgo_t algorithm_;
};

}  // namespace

CublasBaseline::CublasBaseline() : handles_(std::make_unique<Handles>()) {
  check_cublas(cublasCreate(&handles_->cublas), "start cuBLAS");
  check_cublas(cublasLtCreate(&handles_->lt), "start cublasLt");
  handles_->workspace = allocate(kWorkspaceBytes);
}

CublasBaseline::~CublasBaseline() {
  cublasLtDestroy(handles_->lt);
  cublasDestroy(handles_->cublas);
}

std::string CublasBaseline::version() const {
  std::array<int, 3> parts{};
  check_cublas(cublasGetProperty(MAJOR_VERSION, &parts[0]), "version of cuBLAS");
  check_cublas(cublasGetProperty(MINOR_VERSION, &parts[1]), "version of cuBLAS");
  check_cublas(cublasGetProperty(PATCH_LEVEL, &parts[2]), "version of cuBLAS");
  return fmt::format("{}.{}.{}", parts[0], parts[1], parts[2]);
}

std::vector<std::unique_ptr<DenseAlgorithm>> CublasBaseline::algorithms(const DenseProblem& problem) const {
  void* const workspace = handles_->workspace.get();
  std::vector<std::unique_ptr<DenseAlgorithm>> all;
  all.push_back(std::make_unique<GemmEx>(handles_->cublas, workspace, problem));

  const auto lt = std::make_shared<const LtProblem>(problem);
  cublasLtMatmulPreference_t preference = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&preference), "ask cublasLt");
  const std::size_t most = kWorkspaceBytes;
  check_cublas(
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most),
      "ask cublasLt");
  std::array<cublasLtMatmulHeuristicResult_t, kHeuristics> proposals{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handles_->lt, lt->operation, lt->w, lt->x, lt->y, lt->y,
                                                               preference, kHeuristics, proposals.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS) count = 0;  // none for this problem; cublasGemmEx() is left
  for (int i = 0; i < count; ++i) {
    const cublasLtMatmulHeuristicResult_t& proposal = proposals[static_cast<std::size_t>(i)];
    if (proposal.state != CUBLAS_STATUS_SUCCESS) continue;
    all.push_back(std::make_unique<LtAlgorithm>(handles_->lt, workspace, lt, i, proposal.algo));
  }
  return all;
}

}  // namespace unweight::bench
