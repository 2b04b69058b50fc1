// SPDX-License-Identifier: Apache-2.0
#if __has_include(<cublasLt.h>)
#include <cuda/launch/cublaslt.hpp>
#include <cuda/launch/cuda_error.hpp>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <map>
#include <mutex>

namespace unweight::launch {
namespace {

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

Result<CublasLt> load() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return fail(ErrorCode::kCuda, std::string("cuBLASLt: ") + dlerror());
  CublasLt lt{};
  const bool complete =
      find(library, "cublasLtGetVersion", lt.version) && find(library, "cublasLtCreate", lt.create) &&
      find(library, "cublasLtDestroy", lt.destroy) && find(library, "cublasLtGetStatusString", lt.status_string) &&
      find(library, "cublasLtMatmul", lt.matmul) && find(library, "cublasLtMatmulAlgoGetHeuristic", lt.heuristic) &&
      find(library, "cublasLtMatmulAlgoCheck", lt.algorithm_check) &&
      find(library, "cublasLtMatmulDescInit_internal", lt.desc_init) &&
      find(library, "cublasLtMatmulDescSetAttribute", lt.desc_set) &&
      find(library, "cublasLtMatrixLayoutInit_internal", lt.layout_init) &&
      find(library, "cublasLtMatmulPreferenceCreate", lt.preference_create) &&
      find(library, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy) &&
      find(library, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set);
  if (!complete) return fail(ErrorCode::kCuda, "cuBLASLt: " + name + " lacks a function: " + dlerror());
  return lt;
}

}  // namespace

Result<const CublasLt*> CublasLt::get() {
  static const Result<CublasLt> loaded = load();
  if (!loaded) return tl::unexpected(loaded.error());
  return &*loaded;
}

/// cuBLASLt's matrices are column-major, so the product is Y^T = (W^T)^T * X^T.
Result<DenseCall> describe_call(const CublasLt& lt, const DenseProblem& problem) {
  DenseCall call;
  cublasStatus_t status = lt.desc_init(&call.operation, sizeof call.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const auto set = [&](cublasLtMatmulDescAttributes_t which, const auto& value) {
    if (status == CUBLAS_STATUS_SUCCESS) status = lt.desc_set(&call.operation, which, &value, sizeof value);
  };
  const auto layout = [&](cublasLtMatrixLayoutOpaque_t& out, std::uint64_t rows, std::uint64_t cols,
                          std::uint64_t stride) {
    if (status != CUBLAS_STATUS_SUCCESS) return;
    status = lt.layout_init(&out, sizeof out, CUDA_R_16BF, rows, cols, static_cast<std::int64_t>(stride));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (problem.multiprocessors != 0) {
    set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<std::int32_t>(problem.multiprocessors));
  }
  if (problem.has_bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
  }
  layout(call.w, problem.cols, problem.rows, problem.cols);
  layout(call.x, problem.cols, problem.tokens, problem.x_stride);
  layout(call.y, problem.rows, problem.tokens, problem.y_stride);
  if (status == CUBLAS_STATUS_SUCCESS) return call;
  return fail(ErrorCode::kCuda, std::string("cuBLASLt: describe a multiplication: ") + lt.status_string(status));
}

Result<std::shared_ptr<const DenseMultiplier>> DenseMultiplier::get() {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<const DenseMultiplier>> by_device;
  auto lt = CublasLt::get();
  if (!lt) return tl::unexpected(lt.error());
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return cuda_failure(error, "cuBLASLt");
  const std::lock_guard lock(mutex);
  auto& kept = by_device[device];
  if (auto shared = kept.lock()) return shared;
  cublasLtHandle_t handle = nullptr;
  if (auto ok = (*lt)->check((*lt)->create(&handle), "make a handle"); !ok) return tl::unexpected(ok.error());
  auto shared = std::make_shared<const DenseMultiplier>(**lt, handle);
  kept = shared;
  return shared;
}

Result<std::vector<cublasLtMatmulAlgo_t>> DenseMultiplier::proposals(const DenseCall& call, std::uint32_t most,
                                                                     std::size_t workspace_bytes,
                                                                     std::uint32_t x_alignment,
                                                                     std::uint32_t y_alignment) const {
  cublasLtMatmulPreference_t preference = nullptr;
  cublasStatus_t status = lt_.preference_create(&preference);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
    if (status == CUBLAS_STATUS_SUCCESS) status = lt_.preference_set(preference, which, &value, sizeof value);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y_alignment);
  std::vector<cublasLtMatmulHeuristicResult_t> found(most);
  int count = 0;
  DenseCall copy = call;  // cuBLASLt takes descriptors that are not const
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = lt_.heuristic(handle_, &copy.operation, &copy.w, &copy.x, &copy.y, &copy.y, preference,
                           static_cast<int>(most), found.data(), &count);
  }
  if (preference != nullptr) lt_.preference_destroy(preference);
  if (auto ok = lt_.check(status, "ask for algorithms"); !ok) return tl::unexpected(ok.error());
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    const auto& proposal = found[static_cast<std::size_t>(i)];
    if (proposal.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(proposal.algo);
  }
  return algorithms;
}

Result<std::size_t> DenseMultiplier::check(const DenseCall& call, const cublasLtMatmulAlgo_t& algorithm) const {
  DenseCall copy = call;
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      lt_.algorithm_check(handle_, &copy.operation, &copy.w, &copy.x, &copy.y, &copy.y, &algorithm, &result);
  if (status == CUBLAS_STATUS_SUCCESS) return result.workspaceSize;
  return fail(ErrorCode::kInvalidArgument, std::string("cuBLASLt refuses the algorithm: ") + lt_.status_string(status));
}

cublasStatus_t DenseMultiplier::multiply(DenseCall& call, const cublasLtMatmulAlgo_t& algorithm,
                                         const Operands& operands, cudaStream_t stream) const {
  if (operands.bias != nullptr) {
    const cublasStatus_t status =
        lt_.desc_set(&call.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias, sizeof operands.bias);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  constexpr float kOne = 1, kZero = 0;
  return lt_.matmul(handle_, &call.operation, &kOne, operands.weights, &call.w, operands.x, &call.x, &kZero, operands.y,
                    &call.y, operands.y, &call.y, &algorithm, operands.workspace, operands.workspace_bytes, stream);
}

}  // namespace unweight::launch
#endif
