// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <io/try.hpp>
#include <set>
#include <tune/resolve.hpp>
#include <tune/statistics.hpp>
#include <unweight/tune.hpp>
#include <utility>

namespace unweight {
namespace {

tl::unexpected<Error> refuse(const std::string& why) { return fail(ErrorCode::kInvalidArgument, "refine: " + why); }

/// A trial must win by so many times the noise, which is two thirds of a standard deviation of one sample: with five
/// samples a side and twice in a row, a change that is none does so in 0.03% of the trials.
constexpr double kNoiseFactor = 2.5;

double steady_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

class Refiner {
 public:
  Refiner(Plan& plan, const StepTimer& step_us, const RefineOptions& options)
      : plan_(plan), step_us_(step_us), options_(options), now_s_(options.now_s ? options.now_s : steady_s) {}

  Result<RefineReport> run() {
    if (!step_us_) return refuse("no timer");
    if (options_.rounds == 0) return refuse("rounds=0 must be 1 or more");
    if (!(options_.seconds >= 0)) return refuse(fmt::format("seconds={} must be 0 or more", options_.seconds));
    if (!(options_.least_gain >= 0)) return refuse(fmt::format("least_gain={} must be 0 or more", options_.least_gain));
    for (const std::uint32_t tokens : options_.tokens) {
      if (tokens == 0 || tokens > kMaxMatmulTokens) {
        return refuse(fmt::format("tokens={} must be 1 to {}", tokens, kMaxMatmulTokens));
      }
      buckets_.insert(token_bucket(tokens));
    }
    begin_s_ = now_s_();
    auto first = sample(nullptr);
    if (!first) return tl::unexpected(first.error());
    report_.first_us = report_.best_us = first->ours;
    count_total();
    for (std::uint32_t pass = 0; pass < options_.passes; ++pass) {
      const std::uint64_t accepted = report_.accepted;
      if (auto ok = descend(); !ok) return tl::unexpected(ok.error());
      if (report_.stopped || report_.accepted == accepted) break;
    }
    report_.seconds = now_s_() - begin_s_;
    return std::move(report_);
  }

 private:
  [[nodiscard]] std::vector<Measurement>& list_of(PlanCell& cell) const {
    return tune::list_of(cell, plan_.request.dependent_launch);
  }

  [[nodiscard]] bool wanted(const PlanCell& cell) const {
    return buckets_.empty() || buckets_.contains(token_bucket(cell.tokens));
  }

  void count_total() {
    for (PlanWeight& entry : plan_.weights) {
      for (PlanCell& cell : entry.cells) {
        if (wanted(cell) && !list_of(cell).empty()) total_ += list_of(cell).size() - 1;
      }
    }
    total_ *= options_.passes;
  }

  struct Sampled {
    double ours = 0, theirs = 0;  ///< medians of the step with the plan and with the other one
    double noise = 0;             ///< of whichever has more
  };

  /// In turns.
  /// @param other  may be null
  [[nodiscard]] Result<Sampled> sample(const Plan* other) {
    std::vector<double> ours, theirs;
    for (std::uint32_t round = 0; round < options_.rounds; ++round) {
      for (const Plan* plan : {static_cast<const Plan*>(&plan_), other}) {
        if (plan == nullptr) continue;
        auto us = step_us_(*plan);
        if (!us) return tl::unexpected(us.error());
        if (!(*us > 0)) return refuse(fmt::format("the step took {} us", *us));
        (plan == &plan_ ? ours : theirs).push_back(*us);
      }
    }
    if (other == nullptr) return Sampled{tune::median(ours)};
    return Sampled{tune::median(ours), tune::median(theirs), std::max(tune::noise_of(ours), tune::noise_of(theirs))};
  }

  [[nodiscard]] bool go_on(const std::string& current) {
    const double seconds = now_s_() - begin_s_;
    if (options_.seconds > 0 && seconds >= options_.seconds) report_.stopped = true;
    const RefineProgress progress{report_.tried, total_, seconds, report_.first_us, report_.best_us, current};
    if (options_.progress && !options_.progress(progress)) report_.stopped = true;
    return !report_.stopped;
  }

  /// Every alternative of every cell once.
  [[nodiscard]] Result<void> descend() {
    for (std::size_t w = 0; w < plan_.weights.size(); ++w) {
      for (std::size_t c = 0; c < plan_.weights[w].cells.size(); ++c) {
        if (!wanted(plan_.weights[w].cells[c])) continue;
        for (std::size_t i = 1; i < list_of(plan_.weights[w].cells[c]).size(); ++i) {
          if (auto ok = try_alternative(w, c, i); !ok) return ok;
          if (report_.stopped) return {};
        }
      }
    }
    return {};
  }

  [[nodiscard]] Result<void> try_alternative(std::size_t w, std::size_t c, std::size_t i) {
    const PlanWeight& entry = plan_.weights[w];
    const Choice alternative = list_of(plan_.weights[w].cells[c])[i].choice;
    const std::string name =
        fmt::format("{}, {} tokens: {}", describe(entry.weight), entry.cells[c].tokens, describe(alternative));
    if (!go_on(name)) return {};
    Plan changed = plan_;
    auto& list = list_of(changed.weights[w].cells[c]);
    // The rest stays in its order, so that the next index is the next alternative.
    std::swap(list[0], list[i]);
    Sampled sampled;
    // Among many trials some win by chance: twice in a row they rarely do.
    for (int confirmed = 0; confirmed < 2; ++confirmed) {
      auto result = sample(&changed);
      if (!result) return tl::unexpected(result.error());
      sampled = *result;
      if (confirmed == 0) ++report_.tried;
      if (sampled.theirs * (1 + options_.least_gain + kNoiseFactor * sampled.noise) >= sampled.ours) return {};
    }
    plan_ = std::move(changed);
    report_.best_us = sampled.theirs;
    ++report_.accepted;
    report_.changes.push_back(fmt::format("{} ({:.1f} -> {:.1f} us a step)", name, sampled.ours, sampled.theirs));
    return {};
  }

  Plan& plan_;
  const StepTimer& step_us_;
  const RefineOptions& options_;
  std::function<double()> now_s_;
  double begin_s_ = 0;
  std::set<std::uint32_t> buckets_;
  std::uint64_t total_ = 0;
  RefineReport report_;
};

}  // namespace

Result<RefineReport> refine_plan(Plan& plan, const StepTimer& step_us, const RefineOptions& options) {
  return io::guarded([&] { return Refiner(plan, step_us, options).run(); });
}

}  // namespace unweight
