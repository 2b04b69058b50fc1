// SPDX-License-Identifier: Apache-2.0
#if __has_include(<cublasLt.h>)
#include <algorithm>
#include <array>
#include <bit>
#include <cuda/launch/cublaslt.hpp>
#include <cuda/launch/placed_blob.hpp>
#include <new>
#include <string>
#include <unweight/cublas.hpp>

namespace unweight {

using launch::CublasLt;

namespace {

std::string text(std::uint64_t value) { return std::to_string(value); }

tl::unexpected<Error> refuse(const std::string& why) {
  return fail(ErrorCode::kInvalidArgument, "decoded matmul: " + why);
}

constexpr std::uint32_t kMostAlignment = 256;

/// The largest power of two that divides an address, up to what cuBLASLt cares for.
std::uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | kMostAlignment;
  return std::uint32_t{1} << std::countr_zero(bits);
}

}  // namespace

/// What cuBLASLt is told. Its matrices are column-major, so the product is Y^T = (W^T)^T * X^T.
struct DecodedMatmul::Problem {
  const CublasLt* lt = nullptr;
  MatrixShape shape;
  MatmulArguments like;
  std::int32_t multiprocessors = 0;  ///< 0: all
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  std::uint32_t algorithms = 0;

  Problem() = default;
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;
  ~Problem() {
    if (y != nullptr) lt->layout_destroy(y);
    if (x != nullptr) lt->layout_destroy(x);
    if (w != nullptr) lt->layout_destroy(w);
    if (operation != nullptr) lt->desc_destroy(operation);
    if (handle != nullptr) lt->destroy(handle);
  }

  /// Everything but the algorithm.
  Result<void> describe() {
    cublasStatus_t status = lt->create(&handle);
    const auto also = [&](auto&& call) {
      if (status == CUBLAS_STATUS_SUCCESS) status = call();
    };
    const auto set = [&](cublasLtMatmulDescAttributes_t which, const auto& value) {
      also([&] { return lt->desc_set(operation, which, &value, sizeof value); });
    };
    const auto layout = [&](cublasLtMatrixLayout_t& out, std::uint64_t rows, std::uint64_t cols, std::uint64_t stride) {
      also([&] { return lt->layout_create(&out, CUDA_R_16BF, rows, cols, static_cast<std::int64_t>(stride)); });
    };
    also([&] { return lt->desc_create(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F); });
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (multiprocessors != 0) set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, multiprocessors);
    if (like.bias != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_16BF);
    }
    layout(w, shape.cols, shape.rows, shape.cols);
    layout(x, shape.cols, like.tokens, like.x_stride);
    layout(y, shape.rows, like.tokens, like.y_stride);
    return lt->check(status, "describe a multiplication");
  }

  Result<void> choose(std::uint32_t number) {
    cublasLtMatmulPreference_t preference = nullptr;
    cublasStatus_t status = lt->preference_create(&preference);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
      if (status == CUBLAS_STATUS_SUCCESS) status = lt->preference_set(preference, which, &value, sizeof value);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(like.x));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(like.y));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(like.y));
    std::array<cublasLtMatmulHeuristicResult_t, kMostAlgorithms> found{};
    int count = 0;
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = lt->heuristic(handle, operation, w, x, y, y, preference, kMostAlgorithms, found.data(), &count);
    }
    if (preference != nullptr) lt->preference_destroy(preference);
    if (auto ok = lt->check(status, "ask for algorithms"); !ok) return ok;
    const auto end = std::remove_if(found.begin(), found.begin() + count,
                                    [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    algorithms = static_cast<std::uint32_t>(end - found.begin());
    if (number >= algorithms) {
      return refuse("algorithm=" + text(number) + " must be below " + text(algorithms) + ", the number of proposals");
    }
    algorithm = found[number].algo;
    return {};
  }

  [[nodiscard]] Result<void> check(const MatmulArguments& a) const {
    if (a.tokens != like.tokens || a.x_stride != like.x_stride || a.y_stride != like.y_stride) {
      return refuse("tokens=" + text(a.tokens) + ", x_stride=" + text(a.x_stride) + ", y_stride=" + text(a.y_stride) +
                    " are not what it was created for, " + text(like.tokens) + ", " + text(like.x_stride) + ", " +
                    text(like.y_stride));
    }
    if ((a.bias == nullptr) != (like.bias == nullptr)) return refuse("created with a bias, called without, or reverse");
    if (a.x == nullptr || a.y == nullptr) return refuse("x or y is null");
    if (alignment_of(a.x) < alignment_of(like.x) || alignment_of(a.y) < alignment_of(like.y)) {
      return refuse("x or y is aligned to fewer bytes than what it was created for");
    }
    return {};
  }
};

Result<DecodedMatmul> DecodedMatmul::create(const DeviceBlob& weight, const MatmulArguments& like,
                                            std::uint32_t algorithm, std::uint32_t multiprocessors) try {
  const MatrixShape& shape = weight.shape();
  if (shape.batch != 1) return refuse("batch=" + text(shape.batch) + " must be 1");
  if (shape.rows == 0 || shape.cols == 0 || like.tokens == 0) {
    return refuse("rows=" + text(shape.rows) + ", cols=" + text(shape.cols) + ", tokens=" + text(like.tokens) +
                  ": there is nothing to multiply");
  }
  if (like.x_stride < shape.cols) {
    return refuse("x_stride=" + text(like.x_stride) + " must be at least cols=" + text(shape.cols));
  }
  if (like.y_stride < shape.rows) {
    return refuse("y_stride=" + text(like.y_stride) + " must be at least rows=" + text(shape.rows));
  }
  if (multiprocessors > weight.multiprocessors()) {
    return refuse("multiprocessors=" + text(multiprocessors) + " must be at most the device's, " +
                  text(weight.multiprocessors()));
  }
  auto library = CublasLt::get();
  if (!library) return tl::unexpected(library.error());
  const auto problem = std::make_shared<Problem>();
  problem->lt = *library;
  problem->shape = shape;
  problem->like = like;
  problem->multiprocessors = static_cast<std::int32_t>(multiprocessors);
  if (auto ok = problem->describe(); !ok) return tl::unexpected(ok.error());
  if (auto ok = problem->choose(algorithm); !ok) return tl::unexpected(ok.error());
  return DecodedMatmul(problem);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

std::uint32_t DecodedMatmul::algorithms() const noexcept { return problem_->algorithms; }

Result<void> DecodedMatmul::multiply(const std::uint16_t* values, const MatmulArguments& arguments, void* workspace,
                                     cudaStream_t stream) const try {
  const Problem& p = *problem_;
  if (auto ok = p.check(arguments); !ok) return ok;
  if (values == nullptr || !launch::is_aligned(values, kMostAlignment)) {
    return refuse("values are null or not aligned to 256 bytes");
  }
  if (workspace == nullptr || !launch::is_aligned(workspace, kMostAlignment)) {
    return refuse("the workspace is null or not aligned to 256 bytes");
  }
  cublasLtMatmulDescOpaque_t operation = *p.operation;  // several threads may call, each with a bias of its own
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
  if (arguments.bias != nullptr) {
    status = p.lt->desc_set(&operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &arguments.bias, sizeof arguments.bias);
  }
  constexpr float kOne = 1, kZero = 0;
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = p.lt->matmul(p.handle, &operation, &kOne, values, p.w, arguments.x, p.x, &kZero, arguments.y, p.y,
                          arguments.y, p.y, &p.algorithm, workspace, kWorkspaceBytes, stream);
  }
  return p.lt->check(status, "multiply");
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> DecodedMatmul::run(const DeviceBlob& weight, const MatmulArguments& arguments, std::uint16_t* scratch,
                                void* workspace, cudaStream_t stream) const {
  const MatrixShape& shape = weight.shape();
  if (!(shape == problem_->shape)) {
    return refuse("the weight is " + text(shape.rows) + " x " + text(shape.cols) + ", not " +
                  text(problem_->shape.rows) + " x " + text(problem_->shape.cols));
  }
  if (auto ok = problem_->check(arguments); !ok) return ok;
  if (auto ok = decode(weight, scratch, shape.cols, stream); !ok) return ok;
  return multiply(scratch, arguments, workspace, stream);
}

}  // namespace unweight
#else  // a toolkit without cuBLAS
#include <unweight/cublas.hpp>

namespace unweight {

struct DecodedMatmul::Problem {};

Result<DecodedMatmul> DecodedMatmul::create(const DeviceBlob&, const MatmulArguments&, std::uint32_t, std::uint32_t) {
  return fail(ErrorCode::kCuda, "cuBLASLt: this library was built without its header");
}
// Nothing below is ever called: there is no object.
std::uint32_t DecodedMatmul::algorithms() const noexcept { return 0; }
Result<void> DecodedMatmul::multiply(const std::uint16_t*, const MatmulArguments&, void*, cudaStream_t) const {
  return {};
}
Result<void> DecodedMatmul::run(const DeviceBlob&, const MatmulArguments&, std::uint16_t*, void*, cudaStream_t) const {
  return {};
}

}  // namespace unweight
#endif
