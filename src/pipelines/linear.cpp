// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cuda/launch/placed_blob.hpp>
#include <fmt/format.h>
#include <format/layout.hpp>
#include <new>
#include <pipelines/choices.hpp>
#include <pipelines/dense.hpp>
#include <string>
#include <tune/resolve.hpp>
#include <unweight/pipelines.hpp>

namespace unweight {
namespace {

using launch::is_aligned;
using pipelines::class_of;
using pipelines::DenseBuckets;

constexpr std::size_t kAlignment = 256;  ///< of workspace and scratch

tl::unexpected<Error> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "linear: " + why); }

bool is_empty(const MatrixShape& shape) { return shape.batch == 0 || shape.rows == 0 || shape.cols == 0; }

/// Whether cuBLASLt takes operands that lie like this.
bool suits_dense(const LinearArguments& a) {
  return is_aligned(a.x, pipelines::kDenseAlignment) && is_aligned(a.y, pipelines::kDenseAlignment) &&
         is_aligned(a.bias, pipelines::kDenseAlignment) && a.x_stride % pipelines::kDenseGranularity == 0 &&
         a.y_stride % pipelines::kDenseGranularity == 0;
}

/// What matmul() checks, for the other pipelines.
Result<void> check_operands(const LinearArguments& a, const MatrixShape& shape) {
  constexpr std::uint64_t kStrideLimit = std::uint64_t{1} << 40;
  if (a.matrix >= shape.batch) return refuse(fmt::format("matrix={} must be below batch={}", a.matrix, shape.batch));
  if (a.x_stride < shape.cols || a.x_stride >= kStrideLimit) {
    return refuse(fmt::format("x_stride={} must be at least cols={} and below 2^40", a.x_stride, shape.cols));
  }
  if (a.y_stride < shape.rows || a.y_stride >= kStrideLimit) {
    return refuse(fmt::format("y_stride={} must be at least rows={} and below 2^40", a.y_stride, shape.rows));
  }
  if (a.x == nullptr || a.y == nullptr) return refuse("x or y is null");
  if (a.workspace == nullptr || !is_aligned(a.workspace, kAlignment)) {
    return refuse("the workspace is null or not aligned to 256 bytes");
  }
  return {};
}

}  // namespace

struct Linear::Prepared {
  MatrixShape shape;
  WeightClass weight;
  tune::ChoiceTable table{};
  std::shared_ptr<const DenseBuckets> dense;  ///< null where no bucket needs cuBLASLt
  std::size_t fused_workspace_bytes = 0;      ///< the beginning of a workspace; cuBLASLt's part follows

  [[nodiscard]] bool uses_dense(const LinearArguments& arguments) const {
    return table.at(arguments.tokens).choice.pipeline != Pipeline::kFused && suits_dense(arguments);
  }
};

namespace {

/// Gives the buckets that want cuBLASLt to it, and those that it has nothing for to the fused kernel.
Result<std::shared_ptr<const DenseBuckets>> prepare_dense(const MatrixShape& shape, tune::ChoiceTable& table) {
  DenseBuckets::Wanted wanted;
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
    const Choice& choice = table.buckets[bucket].choice;
    if (choice.pipeline != Pipeline::kFused) wanted[bucket] = choice.algorithm;
  }
  if (std::ranges::none_of(wanted, [](const auto& algorithm) { return algorithm.has_value(); })) return nullptr;
  auto dense = DenseBuckets::create(shape, wanted, table.notes);
  if (!dense) return tl::unexpected(dense.error());
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
    if (!wanted[bucket] || (*dense)->has(bucket)) continue;
    table.buckets[bucket] = {{Pipeline::kFused, table.fused[bucket], {}}, ChoiceSource::kCostModel, 0};
    table.notes.push_back(fmt::format("{} x {}, {} tokens: cuBLASLt has no algorithm; the fused kernel is used",
                                      shape.rows, shape.cols, bucket_tokens(bucket)));
  }
  return dense;
}

}  // namespace

Result<Linear> Linear::create(const DeviceBlob& weight, const LinearOptions& options) try {
  const auto prepared = std::make_shared<Prepared>();
  prepared->shape = weight.shape();
  prepared->weight = class_of(weight);
  if (is_empty(weight.shape())) return Linear(weight, prepared);
  auto device = device_identity();
  if (!device) return tl::unexpected(device.error());
  const std::uint64_t cublaslt = options.cublas ? pipelines::cublaslt_version() : 0;
  auto table =
      pipelines::resolve_choices({prepared->weight, weight.shape().batch, *std::move(device), cublaslt}, options);
  if (!table) return tl::unexpected(table.error());
  prepared->table = *std::move(table);
  auto dense = prepare_dense(weight.shape(), prepared->table);
  if (!dense) return tl::unexpected(dense.error());
  prepared->dense = *std::move(dense);
  prepared->fused_workspace_bytes = format::align_up(matmul_workspace_bytes(weight), kAlignment);
  return Linear(weight, prepared);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<Linear> Linear::for_weight(const DeviceBlob& other) const try {
  if (other.shape() == prepared_->shape && class_of(other) == prepared_->weight &&
      other.multiprocessors() == weight_.multiprocessors()) {
    return Linear(other, prepared_);
  }
  return refuse(fmt::format("it was prepared for {} x {}, not for {} x {}", prepared_->shape.batch,
                            describe(prepared_->weight), other.shape().batch, describe(class_of(other))));
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

const ResolvedChoice& Linear::choice(std::uint32_t tokens) const noexcept {
  return prepared_->table.at(std::clamp(tokens, 1U, kMaxMatmulTokens));
}

const std::vector<std::string>& Linear::notes() const noexcept { return prepared_->table.notes; }

std::size_t Linear::workspace_bytes() const noexcept {
  const std::size_t dense = prepared_->dense == nullptr ? 0 : prepared_->dense->workspace_bytes();
  return prepared_->fused_workspace_bytes + format::align_up(dense, kAlignment);
}

std::size_t Linear::scratch_bytes(std::uint32_t most_tokens) const noexcept {
  const std::uint32_t last = token_bucket(std::min(most_tokens, kMaxMatmulTokens));
  for (std::uint32_t bucket = 0; most_tokens != 0 && bucket <= last; ++bucket) {
    if (prepared_->table.buckets[bucket].choice.pipeline != Pipeline::kDecoded) continue;
    return format::align_up(sizeof(std::uint16_t) * prepared_->shape.rows * prepared_->shape.cols, kAlignment);
  }
  return 0;
}

bool Linear::decodes(const LinearArguments& arguments) const noexcept {
  return !is_empty(prepared_->shape) && arguments.tokens != 0 && arguments.tokens <= kMaxMatmulTokens &&
         prepared_->uses_dense(arguments) &&
         prepared_->table.at(arguments.tokens).choice.pipeline == Pipeline::kDecoded;
}

Result<void> Linear::run(const LinearArguments& arguments, cudaStream_t stream) const {
  return multiply(arguments, false, stream);
}

Result<void> Linear::multiply(const LinearArguments& a, bool decoded, cudaStream_t stream) const try {
  const Prepared& p = *prepared_;
  if (a.tokens > kMaxMatmulTokens)
    return refuse(fmt::format("tokens={} must be at most {}", a.tokens, kMaxMatmulTokens));
  if (a.tokens == 0 || p.shape.rows == 0 || p.shape.batch == 0) return {};
  const std::uint32_t bucket = token_bucket(a.tokens);
  const Choice& choice = p.table.buckets[bucket].choice;
  if (p.shape.cols != 0 && p.uses_dense(a)) {
    if (auto ok = check_operands(a, p.shape); !ok) return ok;
    const auto* values = reinterpret_cast<const std::uint16_t*>(weight_.data() + format::kHeaderBytes) +
                         a.matrix * p.shape.rows * p.shape.cols;
    if (choice.pipeline == Pipeline::kDecoded) {
      if (a.scratch == nullptr || !is_aligned(a.scratch, kAlignment)) {
        return refuse(fmt::format(
            "the scratch is null or not aligned to 256 bytes: for {} tokens weights are decoded to it", a.tokens));
      }
      if (!decoded) {
        if (auto ok = decode(weight_, a.scratch, p.shape.cols, stream); !ok) return ok;
      }
      values = a.scratch;
    }
    auto done = p.dense->multiply(values, a, static_cast<std::byte*>(a.workspace) + p.fused_workspace_bytes, stream);
    if (!done) return tl::unexpected(done.error());
    if (*done) return {};
  }
  const MatmulConfig& config = choice.pipeline == Pipeline::kFused ? choice.config : p.table.fused[bucket];
  return matmul(weight_, {a.x, a.x_stride, a.y, a.y_stride, a.bias, a.tokens, a.matrix, a.workspace}, config, stream);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
