// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <fmt/format.h>
#include <set>
#include <tune/cell_search.hpp>
#include <tune/tuner.hpp>
#include <utility>

namespace unweight::tune {
namespace {

tl::unexpected<Error> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "tune: " + why); }

WeightClass in_layout(WeightClass weight, BlobLayout layout) {
  weight.layout = layout;
  if (layout == BlobLayout::kRaw) weight.exceptions = ExceptionClass::kUsual;  // there are none
  return weight;
}

/// The weights without repetition, the largest first: should time run out, small ones are missing.
std::vector<WeightClass> distinct(const std::vector<WeightClass>& weights) {
  std::vector<WeightClass> all;
  for (const WeightClass& weight : weights) {
    const WeightClass tiled = in_layout(weight, BlobLayout::kTiled);
    if (std::ranges::find(all, tiled) == all.end()) all.push_back(tiled);
  }
  std::ranges::stable_sort(all, std::greater<>(), [](const WeightClass& w) { return w.rows * w.cols; });
  return all;
}

const PlanCell* cell_of(const Plan* plan, const WeightClass& weight, std::uint32_t tokens) {
  const PlanWeight* entry = plan == nullptr ? nullptr : plan->find(weight);
  if (entry == nullptr) return nullptr;
  const auto cell = std::ranges::find(entry->cells, tokens, &PlanCell::tokens);
  return cell == entry->cells.end() ? nullptr : &*cell;
}

class Tuner {
 public:
  Tuner(Bench& bench, const TuneOptions& options) : bench_(bench), options_(options), begin_s_(bench.now_s()) {}

  Result<TuneReport> run() {
    const std::vector<WeightClass> weights = distinct(options_.weights);
    if (auto ok = check(weights); !ok) return tl::unexpected(ok.error());
    report_.plan.origin = bench_.origin();
    report_.plan.origin.command = options_.command;
    total_ = weights.size() * tokens_.size();
    check_incumbent();
    for (const WeightClass& weight : weights) {
      if (auto ok = tune_weight(weight); !ok) return tl::unexpected(ok.error());
    }
    report_.seconds = elapsed_s();
    report_.candidates_timed = counts_.timed;
    report_.candidates_refused = counts_.refused;
    for (const auto& [reason, example] : counts_.refusals) {
      report_.refusals.push_back(fmt::format("{} ({})", reason, example));
    }
    if (skipped_ != 0) {
      report_.warnings.push_back(
          fmt::format("no time was left for {} of {} cells; more seconds would do", skipped_, total_));
    }
    return std::move(report_);
  }

 private:
  [[nodiscard]] double elapsed_s() { return bench_.now_s() - begin_s_; }

  [[nodiscard]] Result<void> check(const std::vector<WeightClass>& weights) {
    if (weights.empty()) return refuse("no weights");
    for (const WeightClass& weight : weights) {
      if (weight.rows == 0 || weight.cols == 0) return refuse(describe(weight) + " is empty");
    }
    std::set<std::uint32_t> buckets;
    for (const std::uint32_t tokens : options_.tokens) {
      if (tokens == 0 || tokens > kMaxMatmulTokens) {
        return refuse(fmt::format("tokens={} must be 1 to {}", tokens, kMaxMatmulTokens));
      }
      buckets.insert(bucket_tokens(token_bucket(tokens)));
    }
    if (buckets.empty()) return refuse("no numbers of tokens");
    if (!(options_.seconds >= 0)) return refuse(fmt::format("seconds={} must be 0 or more", options_.seconds));
    tokens_.assign(buckets.begin(), buckets.end());
    return {};
  }

  /// Choices of another device, or for other kernels, are none.
  void check_incumbent() {
    if (options_.incumbent == nullptr) return;
    const PlanOrigin& origin = report_.plan.origin;
    if (auto suits = plan_suits(*options_.incumbent, {origin.gpu, origin.multiprocessors, origin.kernels}); !suits) {
      report_.warnings.push_back("the plan so far does not count: " + suits.error().message);
      return;
    }
    incumbent_ = options_.incumbent;
    same_cublaslt_ = incumbent_->origin.cublaslt == origin.cublaslt;
  }

  [[nodiscard]] Result<void> report_progress(const std::string& current) {
    if (!options_.progress || options_.progress({done_, total_, elapsed_s(), current})) return {};
    return fail(ErrorCode::kCancelled, "tune: stopped");
  }

  [[nodiscard]] Result<void> tune_weight(const WeightClass& weight) {
    const WeightClass raw = in_layout(weight, BlobLayout::kRaw);
    if (auto ok = report_progress(describe(weight)); !ok) return ok;
    if (auto ok = bench_.open(weight, tokens_.back()); !ok) return ok;
    PlanWeight tiled_entry{weight, bench_.blob_bytes(BlobLayout::kTiled), {}};
    PlanWeight raw_entry{raw, bench_.blob_bytes(BlobLayout::kRaw), {}};
    CellPair neighbour;
    for (const std::uint32_t tokens : tokens_) {
      const std::string name = fmt::format("{}, {} tokens", describe(weight), tokens);
      if (auto ok = report_progress(name); !ok) return ok;
      const std::uint64_t left = total_ - done_++;
      if (options_.seconds > 0 && elapsed_s() >= options_.seconds) {
        ++skipped_;
        continue;
      }
      const double now_s = bench_.now_s();
      SearchLimits limits{0, options_.exhaustive};
      // What quick cells leave over is for the others.
      if (options_.seconds > 0) {
        limits.deadline_s = now_s + (options_.seconds - elapsed_s()) / static_cast<double>(left);
      }
      auto cells = search_cell(bench_, tokens, incumbents(weight, raw, tokens), neighbour, limits, counts_);
      if (!cells) return fail(cells.error().code, name + ": " + cells.error().message);
      neighbour = *cells;
      tiled_entry.cells.push_back(std::move(cells->tiled));
      if (!cells->raw.isolated.empty()) raw_entry.cells.push_back(std::move(cells->raw));
    }
    for (PlanWeight* entry : {&tiled_entry, &raw_entry}) {
      // The raw form of two classes of exceptions is one.
      if (entry->cells.empty() || report_.plan.find(entry->weight) != nullptr) continue;
      report_.plan.weights.push_back(std::move(*entry));
    }
    if (options_.weight_done) options_.weight_done(report_.plan);
    return report_progress(describe(weight));
  }

  [[nodiscard]] CellPair incumbents(const WeightClass& tiled, const WeightClass& raw, std::uint32_t tokens) const {
    CellPair pair;
    if (const PlanCell* cell = cell_of(incumbent_, tiled, tokens)) pair.tiled = *cell;
    if (const PlanCell* cell = cell_of(incumbent_, raw, tokens)) pair.raw = *cell;
    for (PlanCell* cell : {&pair.tiled, &pair.raw}) {
      for (auto* list : {&cell->isolated, &cell->dependent}) {
        if (list->empty() || list->front().choice.pipeline == Pipeline::kFused || same_cublaslt_) continue;
        list->clear();  // an algorithm of another cuBLASLt
      }
    }
    return pair;
  }

  Bench& bench_;
  const TuneOptions& options_;
  double begin_s_;
  const Plan* incumbent_ = nullptr;
  bool same_cublaslt_ = false;
  std::vector<std::uint32_t> tokens_;
  std::uint64_t done_ = 0, total_ = 0, skipped_ = 0;
  SearchCounts counts_;
  TuneReport report_;
};

}  // namespace

Result<TuneReport> tune(Bench& bench, const TuneOptions& options) { return Tuner(bench, options).run(); }

}  // namespace unweight::tune
