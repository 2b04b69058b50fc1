// SPDX-License-Identifier: Apache-2.0
#if __has_include(<cublasLt.h>)
#include <algorithm>
#include <bit>
#include <cuda/launch/cublaslt.hpp>
#include <fmt/format.h>
#include <pipelines/dense.hpp>
#include <utility>

namespace unweight::pipelines {
namespace {

using launch::DenseCall;
using launch::DenseMultiplier;
using launch::DenseProblem;

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(CublasAlgorithm::words));

constexpr std::uint32_t kProposals = 8;

class Buckets final : public DenseBuckets {
 public:
  Buckets(std::shared_ptr<const DenseMultiplier> multiplier, const MatrixShape& shape)
      : multiplier_(std::move(multiplier)), shape_(shape) {}

  Result<void> prepare(std::uint32_t bucket, const CublasAlgorithm& wanted, std::vector<std::string>& notes) {
    auto call = describe(bucket_tokens(bucket), false);
    if (!call) return tl::unexpected(call.error());
    auto proposals = multiplier_->proposals(*call, kProposals, kMostDenseWorkspace, kDenseAlignment, kDenseAlignment);
    // A shape that cuBLASLt has nothing for is the fused kernel's.
    if (!proposals) proposals = std::vector<cublasLtMatmulAlgo_t>();
    if (!wanted.first_proposal()) {
      const auto algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(wanted);
      if (auto usable = use(bucket, algorithm); !usable) {
        notes.push_back(fmt::format("{} x {}, {} tokens: {}; its first proposal is used", shape_.rows, shape_.cols,
                                    bucket_tokens(bucket), usable.error().message));
      }
    }
    Entry& entry = entries_[bucket];
    for (const cublasLtMatmulAlgo_t& proposal : *proposals) {
      if (entry.count == entry.algorithms.size()) break;
      if (entry.count == 1 && same(entry.algorithms[0], proposal)) continue;
      (void)use(bucket, proposal);
    }
    return {};
  }

  [[nodiscard]] std::size_t workspace_bytes() const noexcept override { return workspace_bytes_; }
  [[nodiscard]] bool has(std::uint32_t bucket) const noexcept override { return entries_[bucket].count != 0; }

  [[nodiscard]] Result<bool> multiply(const std::uint16_t* values, const LinearArguments& arguments, void* workspace,
                                      cudaStream_t stream) const override {
    const Entry& entry = entries_[token_bucket(arguments.tokens)];
    auto call =
        launch::describe_call(multiplier_->lt(), {shape_.rows, shape_.cols, arguments.tokens, arguments.x_stride,
                                                  arguments.y_stride, arguments.bias != nullptr, 0});
    if (!call) return tl::unexpected(call.error());
    for (std::size_t i = 0; i < entry.count; ++i) {
      const cublasStatus_t status = multiplier_->multiply(
          *call, entry.algorithms[i], {values, arguments.x, arguments.y, arguments.bias, workspace, workspace_bytes_},
          stream);
      if (status == CUBLAS_STATUS_SUCCESS) return true;
      if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) continue;
      return tl::unexpected(multiplier_->lt().check(status, "multiply").error());
    }
    return false;
  }

 private:
  struct Entry {
    std::array<cublasLtMatmulAlgo_t, 2> algorithms{};
    std::size_t count = 0;
  };

  static bool same(const cublasLtMatmulAlgo_t& a, const cublasLtMatmulAlgo_t& b) {
    return std::bit_cast<CublasAlgorithm>(a) == std::bit_cast<CublasAlgorithm>(b);
  }

  [[nodiscard]] Result<DenseCall> describe(std::uint32_t tokens, bool has_bias) const {
    return launch::describe_call(multiplier_->lt(),
                                 {shape_.rows, shape_.cols, tokens, shape_.cols, shape_.rows, has_bias, 0});
  }

  /// Adds the algorithm if it does for both ends of the bucket.
  [[nodiscard]] Result<void> use(std::uint32_t bucket, const cublasLtMatmulAlgo_t& algorithm) {
    std::size_t most = 0;
    for (const std::uint32_t tokens : {bucket_begin(bucket), bucket_tokens(bucket)}) {
      for (const bool has_bias : {false, true}) {
        auto call = describe(tokens, has_bias);
        if (!call) return tl::unexpected(call.error());
        auto bytes = multiplier_->check(*call, algorithm);
        // Some have no bias: calls with one are then for the other algorithm, or the fused kernel.
        if (!bytes && !has_bias) return tl::unexpected(bytes.error());
        most = std::max(most, bytes.value_or(0));
      }
    }
    if (most > kMostDenseWorkspace) {
      return fail(ErrorCode::kInvalidArgument, fmt::format("the algorithm needs a workspace of {} bytes", most));
    }
    workspace_bytes_ = std::max(workspace_bytes_, most);
    Entry& entry = entries_[bucket];
    entry.algorithms[entry.count++] = algorithm;
    return {};
  }

  std::shared_ptr<const DenseMultiplier> multiplier_;
  MatrixShape shape_;
  std::array<Entry, kTokenBuckets> entries_{};
  std::size_t workspace_bytes_ = 0;
};

}  // namespace

std::uint64_t cublaslt_version() {
  const auto lt = launch::CublasLt::get();
  return lt ? (*lt)->version() : 0;
}

Result<std::shared_ptr<const DenseBuckets>> DenseBuckets::create(const MatrixShape& shape, const Wanted& wanted,
                                                                 std::vector<std::string>& notes) {
  auto multiplier = DenseMultiplier::get();
  if (!multiplier) return tl::unexpected(multiplier.error());
  const auto buckets = std::make_shared<Buckets>(*multiplier, shape);
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
    if (!wanted[bucket]) continue;
    if (auto ok = buckets->prepare(bucket, *wanted[bucket], notes); !ok) return tl::unexpected(ok.error());
  }
  return std::shared_ptr<const DenseBuckets>(buckets);
}

}  // namespace unweight::pipelines
#else  // a toolkit without cuBLAS
#include <pipelines/dense.hpp>

namespace unweight::pipelines {

std::uint64_t cublaslt_version() { return 0; }

Result<std::shared_ptr<const DenseBuckets>> DenseBuckets::create(const MatrixShape&, const Wanted&,
                                                                 std::vector<std::string>&) {
  return fail(ErrorCode::kCuda, "cuBLASLt: this library was built without its header");
}

}  // namespace unweight::pipelines
#endif
