// SPDX-License-Identifier: Apache-2.0
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <cmath>
#include <functional>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>
#include <tune/tuner.hpp>
#include <unweight/version.h>

namespace unweight::test {
namespace {

constexpr std::uint32_t kMultiprocessors = 132;
constexpr double kReadBytesPerUs = 3.2e6, kCopyBytesPerUs = 3.0e6, kOperationsPerUs = 7e8;
constexpr char kSimulatedKernels[] = "0123456789abcdef";
constexpr std::uint64_t kSimulatedCublaslt = 130100;
constexpr std::uint64_t kAlgorithms = 5;

/// In [0, 1), always the same for the same text.
double fraction_of(const std::string& text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

tl::unexpected<Error> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "matmul: " + why); }

}  // namespace

Result<void> simulated_can_implement(std::uint32_t tokens, const MatmulConfig& config) {
  if (!config.warpgroup && tokens > 32) return refuse("tokens must be at most 32 without warpgroup");
  if (!config.warpgroup && config.strips > 4) return refuse("strips need warpgroup");
  if (config.warpgroup && config.strips < 4) return refuse("warpgroup needs strips=4, 8, 12 or 16");
  if (tokens > 64 && config.strips != 8 && (tokens > 128 || config.strips != 12)) return refuse("tokens need strips=8");
  if (tokens <= 64 && config.strips == 12) return refuse("strips=12 need tokens");
  if (config.stages < 2 || config.stages > 6) return refuse("stages need shared memory");
  if (config.strips != 1 && config.strips != 2 && config.strips != 4 && config.strips != 8 && config.strips != 12 &&
      config.strips != 16) {
    return refuse("strips=" + std::to_string(config.strips) + " must be 1, 2, 4, 8, 12 or 16");
  }
  return {};
}

PlanOrigin SimulatedBench::origin() const {
  PlanOrigin origin;
  origin.gpu = kSimulatedGpu;
  origin.multiprocessors = kMultiprocessors;
  origin.memory_bytes = 80'000'000'000;
  origin.driver = "1.2.3";
  origin.cuda = "13.0";
  origin.cublaslt = options_.cublas ? kSimulatedCublaslt : 0;
  origin.library = UNWEIGHT_VERSION_STRING;
  origin.kernels = kSimulatedKernels;
  origin.date = "2026-01-02T03:04:05Z";
  return origin;
}

Result<void> SimulatedBench::open(const WeightClass& weight, std::uint32_t) {
  weight_ = weight;
  now_s_ += options_.open_s;
  return {};
}

std::uint64_t SimulatedBench::blob_bytes(BlobLayout layout) const {
  return static_cast<std::uint64_t>((layout == BlobLayout::kRaw ? 2.0 : 1.40) *
                                    static_cast<double>(weight_.rows * weight_.cols));
}

Result<tune::CellCandidates> SimulatedBench::candidates(std::uint32_t tokens) {
  tune::CellCandidates all;
  for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
    auto configs = tune::config_candidates(token_bucket(tokens), false, simulated_can_implement);
    for (const MatmulConfig& config : configs.legal)
      all.legal.push_back({layout, {Pipeline::kFused, config, {}}, false});
    for (auto& refused : configs.refused) {
      all.refused.push_back({{layout, {Pipeline::kFused, refused.config, {}}, false}, refused.reason});
    }
  }
  if (!options_.cublas) return all;
  all.legal.push_back({BlobLayout::kRaw, {Pipeline::kRaw, {}, {}}, true});
  for (std::uint64_t i = 1; i <= kAlgorithms; ++i) {
    all.legal.push_back({BlobLayout::kRaw, {Pipeline::kRaw, {}, {{i, i * i}}}, false});
  }
  return all;
}

Result<double> SimulatedBench::decode_us() {
  return 2.6 + 3.4 * static_cast<double>(weight_.rows * weight_.cols) / kCopyBytesPerUs;
}

double SimulatedBench::true_us(const tune::Candidate& candidate, std::uint32_t tokens) const {
  const double operations = 2.0 * tokens * static_cast<double>(weight_.rows * weight_.cols);
  const auto bytes = static_cast<double>(blob_bytes(candidate.layout));
  const std::string name = describe(weight_) + std::to_string(tokens) + describe(candidate.choice);
  const auto factor = factors.find(describe(candidate.choice));
  double us = (1 + options_.variation * fraction_of(name)) * (factor == factors.end() ? 1 : factor->second);
  if (candidate.choice.pipeline != Pipeline::kFused) {
    const auto dense = static_cast<double>(blob_bytes(BlobLayout::kRaw));
    us *= options_.cublas_us_factor * (3 + std::max(dense / kReadBytesPerUs, operations / kOperationsPerUs));
    if (candidate.choice.pipeline == Pipeline::kDecoded) us += const_cast<SimulatedBench*>(this)->decode_us().value();
    return us;
  }
  const MatmulConfig& config = candidate.choice.config;
  // Too few and too many stages cost; the tensor cores wait for decoding.
  us *= 1 + 0.02 * std::abs(static_cast<double>(config.stages) - 3.4);
  us *=
      (config.dependent_launch ? 0.8 : 2.0) + std::max(bytes / kReadBytesPerUs, operations / (0.8 * kOperationsPerUs));
  return us;
}

double SimulatedBench::best_us(BlobLayout layout, std::uint32_t tokens, bool dependent) {
  double best = 1e300;
  const tune::CellCandidates all = candidates(tokens).value();
  for (tune::Candidate candidate : all.legal) {
    if (candidate.baseline) continue;
    candidate.choice.config.dependent_launch = dependent;
    if (candidate.choice.pipeline == Pipeline::kRaw && layout == BlobLayout::kTiled) {
      candidate.layout = layout;
      candidate.choice.pipeline = Pipeline::kDecoded;
    }
    if (candidate.layout == layout) best = std::min(best, true_us(candidate, tokens));
  }
  return best;
}

Result<void> SimulatedBench::check(const tune::Candidate& candidate, std::uint32_t tokens) {
  ++checks;
  now_s_ += options_.candidate_s;
  if (candidate.choice.pipeline == Pipeline::kFused) {
    if (auto ok = simulated_can_implement(tokens, candidate.choice.config); !ok) return ok;
  }
  if (describe(candidate.choice) != options_.wrong_config) return {};
  return fail(ErrorCode::kNotIdentical, "1 of 2 values differ: " + options_.wrong_config);
}

class SimulatedBench::SimulatedStopwatch final : public tune::Stopwatch {
 public:
  SimulatedStopwatch(SimulatedBench& bench, double us) : bench_(bench), us_(us) {}
  [[nodiscard]] Result<double> sample_us() override {
    ++bench_.samples;
    std::normal_distribution<double> normal(1, std::max(bench_.options_.noise, 1e-12));
    bench_.now_s_ += 1e-6 * std::max(1000.0, 2 * us_);
    return us_ * (bench_.options_.noise > 0 ? normal(bench_.random_) : 1);
  }

 private:
  SimulatedBench& bench_;
  double us_;
};

Result<std::unique_ptr<tune::Stopwatch>> SimulatedBench::prepare(const tune::Candidate& candidate,
                                                                 std::uint32_t tokens) {
  return std::make_unique<SimulatedStopwatch>(*this, true_us(candidate, tokens));
}

tune::LookupRules simulated_rules(const WeightClass& weight) {
  tune::LookupRules rules;
  rules.weight = weight;
  rules.device = {kSimulatedGpu, kMultiprocessors, kSimulatedKernels};
  rules.cublaslt = kSimulatedCublaslt;
  rules.can_implement = simulated_can_implement;
  rules.choose_config = [](std::uint32_t tokens) -> Result<MatmulConfig> {
    if (tokens <= 32) return MatmulConfig{.strips = 2, .stages = 3};
    return MatmulConfig{.strips = 8, .stages = 3, .warpgroup = true};
  };
  return rules;
}

ModelMatrices simulated_model() {
  ModelMatrices model;
  model.model = "two-kinds";
  model.other_bytes = 1'000'000;
  model.kv_bytes_per_token = 131072;
  for (const auto& [kind, rows, cols] : {std::tuple("o_proj", 4096U, 4096U), {"down_proj", 4096U, 14336U}}) {
    PlanMatrices equal;
    equal.kind = kind;
    equal.rows = rows;
    equal.cols = cols;
    equal.compressed_bytes = static_cast<std::uint64_t>(1.40 * rows * cols);
    equal.raw_bytes = 2ULL * rows * cols;
    for (int layer = 0; layer < 3; ++layer) {
      equal.names.push_back("model.layers." + std::to_string(layer) + ".x." + kind + ".weight");
    }
    model.matrices.push_back(std::move(equal));
  }
  return model;
}

Plan simulated_plan(const MemoryOptions& options, const SimulationOptions& simulation) {
  SimulatedBench bench(simulation);
  const ModelMatrices model = simulated_model();
  TuneOptions tuning;
  tuning.weights = weight_classes(model);
  for (std::uint32_t tokens = 1; tokens <= 4096; tokens *= 2) tuning.tokens.push_back(tokens);
  tuning.command = "unweight tune --shapes ...";
  Plan plan = tune::tune(bench, tuning).value().plan;
  (void)plan_memory(plan, model, options).value();
  return plan;
}

}  // namespace unweight::test
