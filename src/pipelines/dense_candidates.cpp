// SPDX-License-Identifier: Apache-2.0
#include <pipelines/dense_candidates.hpp>
#if __has_include(<cublasLt.h>)
#include <bit>
#include <cuda/launch/cublaslt.hpp>
#include <io/try.hpp>
#include <string>
#include <utility>
#endif

namespace unweight::pipelines {
namespace {

class Nothing final : public DenseCandidates {
 public:
  [[nodiscard]] Result<std::vector<CublasAlgorithm>> algorithms(std::uint32_t) const override {
    return std::vector<CublasAlgorithm>();
  }
  [[nodiscard]] Result<void> multiply(const CublasAlgorithm&, std::uint32_t, const std::uint16_t*, const std::uint16_t*,
                                      std::uint16_t*, void*, cudaStream_t) const override {
    return fail(ErrorCode::kInvalidArgument, "there is no cuBLASLt");
  }
};

#if __has_include(<cublasLt.h>)
class Algorithms final : public DenseCandidates {
 public:
  Algorithms(std::shared_ptr<const launch::DenseMultiplier> multiplier, const MatrixShape& shape)
      : multiplier_(std::move(multiplier)), shape_(shape) {}

  [[nodiscard]] Result<std::vector<CublasAlgorithm>> algorithms(std::uint32_t tokens) const override {
    UNWEIGHT_ASSIGN(const launch::DenseCall call, describe(tokens));
    const auto proposals =
        multiplier_->proposals(call, kProposals, kMostDenseWorkspace, kDenseAlignment, kDenseAlignment);
    std::vector<CublasAlgorithm> all;
    if (!proposals) return all;  // cuBLASLt has nothing for the shape
    for (const cublasLtMatmulAlgo_t& algorithm : *proposals) all.push_back(std::bit_cast<CublasAlgorithm>(algorithm));
    return all;
  }

  [[nodiscard]] Result<void> multiply(const CublasAlgorithm& algorithm, std::uint32_t tokens,
                                      const std::uint16_t* values, const std::uint16_t* x, std::uint16_t* y,
                                      void* workspace, cudaStream_t stream) const override {
    UNWEIGHT_ASSIGN(launch::DenseCall call, describe(tokens));
    cublasLtMatmulAlgo_t chosen = std::bit_cast<cublasLtMatmulAlgo_t>(algorithm);
    if (algorithm.first_proposal()) {
      UNWEIGHT_ASSIGN(const std::vector<CublasAlgorithm> all, algorithms(tokens));
      if (all.empty()) return fail(ErrorCode::kInvalidArgument, "cuBLASLt proposes no algorithm");
      chosen = std::bit_cast<cublasLtMatmulAlgo_t>(all.front());
    }
    const cublasStatus_t status =
        multiplier_->multiply(call, chosen, {values, x, y, nullptr, workspace, kMostDenseWorkspace}, stream);
    if (status == CUBLAS_STATUS_SUCCESS) return {};
    return fail(ErrorCode::kInvalidArgument,
                std::string("cuBLASLt refuses the algorithm: ") + multiplier_->lt().status_string(status));
  }

 private:
  [[nodiscard]] Result<launch::DenseCall> describe(std::uint32_t tokens) const {
    return launch::describe_call(multiplier_->lt(),
                                 {shape_.rows, shape_.cols, tokens, shape_.cols, shape_.rows, false, 0});
  }

  std::shared_ptr<const launch::DenseMultiplier> multiplier_;
  MatrixShape shape_;
};
#endif

}  // namespace

Result<std::unique_ptr<DenseCandidates>> DenseCandidates::create([[maybe_unused]] const MatrixShape& shape) {
#if __has_include(<cublasLt.h>)
  if (suits_dense(shape) && cublaslt_version() != 0) {
    UNWEIGHT_ASSIGN(auto multiplier, launch::DenseMultiplier::get());
    return std::make_unique<Algorithms>(std::move(multiplier), shape);
  }
#endif
  return std::make_unique<Nothing>();
}

}  // namespace unweight::pipelines
