// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <ctime>
#include <fmt/format.h>
#include <fstream>
#include <io/try.hpp>
#include <optional>
#include <pipelines/bench_weight.hpp>
#include <pipelines/cublas_baseline.hpp>
#include <pipelines/dense_candidates.hpp>
#include <pipelines/device_bench.hpp>
#include <pipelines/graph_stopwatch.hpp>
#include <sstream>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>
#include <tune/tuner.hpp>
#include <unweight/pipelines.hpp>
#include <unweight/version.h>
#include <utility>

namespace unweight {
namespace pipelines {
namespace {

using tune::Candidate;
using tune::CellCandidates;

constexpr double kMaxRelativeError = 1e-2;

/// "580.159.04", where the driver says so; otherwise the CUDA version that it supports.
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string word;
  while (file >> word) {
    const bool version =
        word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos;
    if (version) return word;
  }
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) return {};
  return fmt::format("CUDA {}.{}", version / 1000, version % 1000 / 10);
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

Result<PlanOrigin> make_origin() {
  UNWEIGHT_ASSIGN(const DeviceIdentity device, device_identity());
  PlanOrigin origin;
  origin.gpu = device.gpu;
  origin.multiprocessors = device.multiprocessors;
  origin.kernels = device.kernels;
  std::size_t available = 0, total = 0;
  UNWEIGHT_TRY(cuda_check(cudaMemGetInfo(&available, &total), "device memory"));
  origin.memory_bytes = total;
  origin.driver = driver_version();
  int runtime = 0;
  UNWEIGHT_TRY(cuda_check(cudaRuntimeGetVersion(&runtime), "runtime version"));
  origin.cuda = fmt::format("{}.{}", runtime / 1000, runtime % 1000 / 10);
  origin.cublaslt = cublaslt_version();
  origin.library = UNWEIGHT_VERSION_STRING;
  origin.date = now_utc();
  return origin;
}

class DeviceBench final : public tune::Bench {
 public:
  DeviceBench() = default;
  ~DeviceBench() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  Result<void> start() {
    UNWEIGHT_ASSIGN(origin_, make_origin());
    UNWEIGHT_TRY(cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "tune: make a stream"));
    UNWEIGHT_ASSIGN(baseline_, CublasBaseline::create());
    UNWEIGHT_ASSIGN(dense_workspace_, allocate_device(kMostDenseWorkspace, "tune: workspace"));
    return {};
  }

  [[nodiscard]] PlanOrigin origin() const override { return origin_; }

  [[nodiscard]] Result<void> open(const WeightClass& weight, std::uint32_t most_tokens) override {
    weight_.reset();
    dense_.reset();
    expected_.reset();
    decode_us_.reset();
    UNWEIGHT_ASSIGN(BenchWeight made, BenchWeight::make(weight, most_tokens));
    weight_.emplace(std::move(made));
    const std::size_t bytes = matmul_workspace_bytes(blob(BlobLayout::kTiled));
    UNWEIGHT_ASSIGN(workspace_, allocate_device(bytes, "tune: workspace"));
    UNWEIGHT_TRY(cuda_check(cudaMemset(workspace_.get(), 0, bytes), "tune: workspace"));
    UNWEIGHT_ASSIGN(dense_, DenseCandidates::create(weight_->shape()));
    return cuda_check(cudaDeviceSynchronize(), "tune: weights");
  }

  [[nodiscard]] std::uint64_t blob_bytes(BlobLayout layout) const override { return blob(layout).size_bytes(); }

  [[nodiscard]] Result<CellCandidates> candidates(std::uint32_t tokens) override {
    CellCandidates all;
    for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
      auto configs = tune::config_candidates(
          token_bucket(tokens), false,
          [&](std::uint32_t count, const MatmulConfig& config) { return can_implement(blob(layout), count, config); });
      for (const MatmulConfig& config : configs.legal)
        all.legal.push_back({layout, {Pipeline::kFused, config, {}}, false});
      for (tune::RefusedConfig& refused : configs.refused) {
        all.refused.push_back({{layout, {Pipeline::kFused, refused.config, {}}, false}, std::move(refused.reason)});
      }
    }
    if (baseline_ != nullptr) all.legal.push_back({BlobLayout::kRaw, {Pipeline::kRaw, {}, {}}, true});
    UNWEIGHT_ASSIGN(const std::vector<CublasAlgorithm> algorithms, dense_->algorithms(tokens));
    for (const CublasAlgorithm& algorithm : algorithms) {
      all.legal.push_back({BlobLayout::kRaw, {Pipeline::kRaw, {}, algorithm}, false});
    }
    return all;
  }

  [[nodiscard]] Result<double> decode_us() override {
    if (decode_us_) return *decode_us_;
    UNWEIGHT_ASSIGN(const auto stopwatch, capture(BlobLayout::kTiled, 0, [&](std::size_t launch, cudaStream_t stream) {
                      return decode(weight_->rotation(BlobLayout::kTiled).turn(launch), weight_->scratch(),
                                    weight_->shape().cols, stream);
                    }));
    double least = 1e300;
    for (int sample = 0; sample < 3; ++sample) {
      UNWEIGHT_ASSIGN(const double us, stopwatch->sample_us());
      least = std::min(least, us);
    }
    decode_us_ = least;
    return least;
  }

  [[nodiscard]] Result<void> check(const Candidate& candidate, std::uint32_t tokens) override {
    switch (candidate.choice.pipeline) {
      case Pipeline::kFused:
        UNWEIGHT_TRY(expect_fused(candidate.choice.config, tokens));
        break;
      case Pipeline::kDecoded:
        UNWEIGHT_TRY(expect_dense(candidate, tokens));
        break;
      case Pipeline::kRaw:
        return check_dense(candidate, tokens);
    }
    UNWEIGHT_TRY(weight_->poison(weight_->y(), tokens, stream_));
    if (candidate.choice.pipeline == Pipeline::kDecoded) UNWEIGHT_TRY(poison_scratch());
    // Twice: with dependent launch the second one begins while the first still runs.
    for (std::size_t launch = 0; launch < 2; ++launch) {
      UNWEIGHT_TRY(enqueue(candidate, tokens, weight_->y(), launch, stream_));
    }
    UNWEIGHT_ASSIGN(const std::uint64_t different, weight_->differences(tokens, stream_));
    if (different == 0) return {};
    return fail(
        ErrorCode::kNotIdentical,
        fmt::format("{} of {} values differ from those of the original weights: {} weights, {} tokens, {}", different,
                    tokens * weight_->shape().rows, layout_name(candidate.layout), tokens, describe(candidate.choice)));
  }

  [[nodiscard]] Result<std::unique_ptr<tune::Stopwatch>> prepare(const Candidate& candidate,
                                                                 std::uint32_t tokens) override {
    return capture(candidate.layout, tokens, [this, candidate, tokens](std::size_t launch, cudaStream_t stream) {
      return enqueue(candidate, tokens, weight_->y(), launch, stream);
    });
  }

  [[nodiscard]] double now_s() override {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

 private:
  [[nodiscard]] const DeviceBlob& blob(BlobLayout layout) const { return weight_->rotation(layout).blobs.front(); }

  [[nodiscard]] Result<void> enqueue(const Candidate& candidate, std::uint32_t tokens, std::uint16_t* y,
                                     std::size_t launch, cudaStream_t stream) const {
    const MatrixShape& shape = weight_->shape();
    if (candidate.choice.pipeline == Pipeline::kFused) {
      return matmul(weight_->rotation(candidate.layout).turn(launch),
                    {.x = weight_->x(),
                     .x_stride = shape.cols,
                     .y = y,
                     .y_stride = shape.rows,
                     .bias = nullptr,
                     .tokens = tokens,
                     .matrix = 0,
                     .workspace = workspace_.get()},
                    candidate.choice.config, stream);
    }
    const std::uint16_t* values = weight_->dense(launch);
    if (candidate.choice.pipeline == Pipeline::kDecoded) {
      UNWEIGHT_TRY(decode(weight_->rotation(BlobLayout::kTiled).turn(launch), weight_->scratch(), shape.cols, stream));
      values = weight_->scratch();
    }
    if (candidate.baseline) {
      return baseline_->multiply(shape, tokens, values, weight_->x(), y, dense_workspace_.get(), kMostDenseWorkspace,
                                 stream);
    }
    return dense_->multiply(candidate.choice.algorithm, tokens, values, weight_->x(), y, dense_workspace_.get(),
                            stream);
  }

  /// As many launches as a sample of about a millisecond has, with each copy as often as the others.
  template <class Enqueue>
  [[nodiscard]] Result<std::unique_ptr<tune::Stopwatch>> capture(BlobLayout layout, std::uint32_t tokens,
                                                                 const Enqueue& enqueue_one) {
    constexpr double kSampleUs = 1000, kBytesPerUs = 4e6, kOperationsPerUs = 8e8;
    const MatrixShape& shape = weight_->shape();
    const auto copies = static_cast<double>(weight_->rotation(layout).blobs.size());
    const double operations = 2.0 * tokens * static_cast<double>(shape.rows) * static_cast<double>(shape.cols);
    const double least_us =
        1 + std::max(static_cast<double>(blob_bytes(layout)) / kBytesPerUs, operations / kOperationsPerUs);
    const double launches = copies * std::max(1.0, std::ceil(kSampleUs / least_us / copies));
    return GraphStopwatch::capture(static_cast<std::size_t>(launches), enqueue_one, stream_);
  }

  /// expected_y() by the same kernel on raw weights. Its bits do not depend on matters of degree and of launch, so that
  /// one result serves a family.
  [[nodiscard]] Result<void> expect_fused(const MatmulConfig& config, std::uint32_t tokens) {
    const auto oracle = raw_twin(config, tokens);
    if (!oracle) {
      return fail(ErrorCode::kInvalidArgument,
                  "the kernel does not take raw weights: there is nothing to compare with");
    }
    if (expected_ && expected_->first == tokens && tune::same_config(expected_->second, *oracle)) return {};
    expected_.reset();
    const Candidate raw{BlobLayout::kRaw, {Pipeline::kFused, *oracle, {}}, false};
    UNWEIGHT_TRY(weight_->poison(weight_->expected_y(), tokens, stream_));
    UNWEIGHT_TRY(enqueue(raw, tokens, weight_->expected_y(), 0, stream_));
    UNWEIGHT_ASSIGN(const double error, weight_->relative_error(weight_->expected_y(), tokens, stream_));
    if (!(error < kMaxRelativeError)) {
      return fail(ErrorCode::kNotIdentical, fmt::format("raw weights, {} tokens, {}: relative error {:.3g}", tokens,
                                                        describe(raw.choice), error));
    }
    expected_.emplace(tokens, *oracle);
    return {};
  }

  /// The first legal configuration for raw weights that differs from this one in matters of degree and of launch alone.
  [[nodiscard]] std::optional<MatmulConfig> raw_twin(MatmulConfig config, std::uint32_t tokens) const {
    config.dependent_launch = false;
    std::vector<MatmulConfig> twins = {config};
    for (const tune::ConfigMember& member : tune::kConfigMembers) {
      if (member.role != tune::MemberRole::kDepth) continue;
      const std::vector<MatmulConfig> before = std::exchange(twins, {});
      for (const MatmulConfig& twin : before) {
        for (const std::uint32_t value : member.values) member.set(twins.emplace_back(twin), value);
      }
    }
    const auto found = std::ranges::find_if(twins, [&](const MatmulConfig& twin) {
      return can_implement(blob(BlobLayout::kRaw), tokens, twin).has_value();
    });
    return found == twins.end() ? std::nullopt : std::optional(*found);
  }

  /// expected_y() by the same algorithm on the original weights.
  [[nodiscard]] Result<void> expect_dense(const Candidate& candidate, std::uint32_t tokens) {
    expected_.reset();
    Candidate original = candidate;
    original.choice.pipeline = Pipeline::kRaw;
    UNWEIGHT_TRY(weight_->poison(weight_->expected_y(), tokens, stream_));
    return enqueue(original, tokens, weight_->expected_y(), 0, stream_);
  }

  /// cuBLAS's own results: there is float64 to compare with.
  [[nodiscard]] Result<void> check_dense(const Candidate& candidate, std::uint32_t tokens) {
    UNWEIGHT_TRY(weight_->poison(weight_->y(), tokens, stream_));
    UNWEIGHT_TRY(enqueue(candidate, tokens, weight_->y(), 0, stream_));
    UNWEIGHT_ASSIGN(const double error, weight_->relative_error(weight_->y(), tokens, stream_));
    if (error < kMaxRelativeError) return {};
    return fail(ErrorCode::kInvalidArgument, "cuBLAS is wrong there");
  }

  [[nodiscard]] Result<void> poison_scratch() const {
    return cuda_check(
        cudaMemsetAsync(weight_->scratch(), 0xff, 2 * weight_->shape().rows * weight_->shape().cols, stream_),
        "tune: poison");
  }

  PlanOrigin origin_;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<CublasBaseline> baseline_;
  DeviceBuffer workspace_, dense_workspace_;
  std::optional<BenchWeight> weight_;
  std::unique_ptr<DenseCandidates> dense_;
  std::optional<std::pair<std::uint32_t, MatmulConfig>> expected_;  ///< what expected_y() holds
  std::optional<double> decode_us_;
};

}  // namespace

Result<std::unique_ptr<tune::Bench>> device_bench() {
  auto bench = std::make_unique<DeviceBench>();
  UNWEIGHT_TRY(bench->start());
  return bench;
}

}  // namespace pipelines

Result<TuneReport> tune_on_device(const TuneOptions& options) {
  return io::guarded([&]() -> Result<TuneReport> {
    UNWEIGHT_ASSIGN(const std::unique_ptr<tune::Bench> bench, pipelines::device_bench());
    return tune::tune(*bench, options);
  });
}

}  // namespace unweight
