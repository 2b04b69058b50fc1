// SPDX-License-Identifier: Apache-2.0
//
// Refinement in a whole model, whose step is simulated: coordinate descent that takes real gains and no others.
#include "support/checkpoints.hpp"
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <unweight/tune.hpp>
#include <unweight/unweight_plan.h>
#include <vector>

namespace unweight::test {
namespace {

/// A step that takes the sum of what its weights' choices take, and more or less by what the alone-measured times do
/// not know: here the place of a choice in the list of the plan it began with.
class Step {
 public:
  Step(const Plan& begin, std::uint32_t tokens, double noise, std::uint64_t seed = 1)
      : begin_(begin), tokens_(tokens), noise_(noise), random_(seed) {}

  /// The cost of a choice in the step, by its place in the list at the beginning.
  std::vector<double> cost_by_place = {100, 90, 80, 95, 99, 120};
  std::uint64_t calls = 0;
  double now_s = 0;

  double true_us(const Plan& plan) const {
    double us = 1000;
    for (std::size_t w = 0; w < plan.weights.size(); ++w) {
      const PlanCell& cell = *nearest_cell(plan.weights[w], tokens_);
      const auto& before = nearest_cell(begin_.weights[w], tokens_)->dependent;
      const auto place =
          std::ranges::find(before, cell.dependent.front().choice, &Measurement::choice) - before.begin();
      us += cost_by_place.at(static_cast<std::size_t>(place));
    }
    return us;
  }

  Result<double> operator()(const Plan& plan) {
    ++calls;
    now_s += 0.01;
    std::normal_distribution<double> normal(1, std::max(noise_, 1e-12));
    return true_us(plan) * (noise_ > 0 ? normal(random_) : 1);
  }

 private:
  Plan begin_;
  std::uint32_t tokens_;
  double noise_;
  std::mt19937_64 random_;
};

RefineOptions options_for(Step& step) {
  RefineOptions options;
  options.tokens = {8};
  options.now_s = [&step] { return step.now_s; };
  return options;
}

TEST(Refine, FindsTheBestOfEveryCell) {
  Plan plan = simulated_plan();
  Step step(plan, 8, 0);
  const auto report = refine_plan(plan, std::ref(step), options_for(step));
  ASSERT_TRUE(report) << report.error().message;
  // Four weights: two kinds, tiled and raw; each has alternatives.
  EXPECT_EQ(step.true_us(plan), 1000 + 80.0 * static_cast<double>(plan.weights.size()));
  EXPECT_EQ(report->best_us, step.true_us(plan));
  EXPECT_EQ(report->first_us, 1000 + 100.0 * static_cast<double>(plan.weights.size()));
  EXPECT_GE(report->accepted, plan.weights.size());
  EXPECT_EQ(report->accepted, report->changes.size());
  EXPECT_FALSE(report->stopped);
  EXPECT_NE(report->changes[0].find("8 tokens: fused"), std::string::npos) << report->changes[0];
}

TEST(Refine, OtherCellsAreLeftAlone) {
  Plan plan = simulated_plan();
  const Plan before = plan;
  Step step(plan, 8, 0);
  ASSERT_TRUE(refine_plan(plan, std::ref(step), options_for(step)));
  for (std::size_t w = 0; w < plan.weights.size(); ++w) {
    for (std::size_t c = 0; c < plan.weights[w].cells.size(); ++c) {
      const PlanCell &now = plan.weights[w].cells[c], &then = before.weights[w].cells[c];
      EXPECT_EQ(now.isolated, then.isolated);
      EXPECT_EQ(now.dependent == then.dependent, now.tokens != 8);
      EXPECT_TRUE(std::ranges::is_permutation(now.dependent, then.dependent));
    }
  }
}

TEST(Refine, NoiseIsNoGain) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Plan plan = simulated_plan();
    Step step(plan, 8, 0.01, seed);
    step.cost_by_place = {100, 100, 100, 100, 100, 100};
    const auto report = refine_plan(plan, std::ref(step), options_for(step));
    ASSERT_TRUE(report);
    EXPECT_EQ(report->accepted, 0U) << seed;
    EXPECT_GT(report->tried, 0U);
  }
}

TEST(Refine, GainsAboveTheNoiseAreFoundAllTheSame) {
  std::uint64_t found = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Plan plan = simulated_plan();
    Step step(plan, 8, 0.003, seed);
    step.cost_by_place = {300, 300, 250, 300, 300, 300};
    ASSERT_TRUE(refine_plan(plan, std::ref(step), options_for(step)));
    EXPECT_LE(step.true_us(plan), 1000 + 300.0 * static_cast<double>(plan.weights.size()));
    found += step.true_us(plan) == 1000 + 250.0 * static_cast<double>(plan.weights.size()) ? 1U : 0U;
  }
  EXPECT_GE(found, 8U);
}

TEST(Refine, KeepsToItsTime) {
  Plan plan = simulated_plan();
  Step step(plan, 8, 0);
  RefineOptions options = options_for(step);
  options.seconds = 0.5;
  const auto report = refine_plan(plan, std::ref(step), options);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->stopped);
  EXPECT_LT(step.now_s, 0.5 + 0.01 * 4 * options.rounds);
}

TEST(Refine, ShowsProgressAndStops) {
  Plan plan = simulated_plan();
  Step step(plan, 8, 0);
  RefineOptions options = options_for(step);
  std::vector<RefineProgress> seen;
  options.progress = [&](const RefineProgress& progress) {
    seen.push_back(progress);
    return seen.size() < 5;
  };
  const auto report = refine_plan(plan, std::ref(step), options);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->stopped);
  ASSERT_EQ(seen.size(), 5U);
  EXPECT_EQ(report->tried, 4U);
  for (std::size_t i = 1; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].tried, seen[i - 1].tried + 1);
    EXPECT_LE(seen[i].best_us, seen[i - 1].best_us);
    EXPECT_LE(seen[i].tried, seen[i].total);
  }
}

TEST(Refine, AnErrorOfTheStepKeepsTheBestSoFar) {
  Plan plan = simulated_plan();
  Step step(plan, 8, 0);
  int left = 40;
  const auto failing = [&](const Plan& changed) -> Result<double> {
    if (left-- == 0) return fail(ErrorCode::kCuda, "the step failed");
    return step(changed);
  };
  const double before = step.true_us(plan);
  const auto report = refine_plan(plan, failing, options_for(step));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().message, "the step failed");
  EXPECT_LT(step.true_us(plan), before);
}

TEST(Refine, RefusesUnsoundOptions) {
  const auto refused = [](auto change, const std::string& part) {
    Plan plan = simulated_plan();
    Step step(plan, 8, 0);
    RefineOptions options = options_for(step);
    change(options);
    const auto report = refine_plan(plan, std::ref(step), options);
    ASSERT_FALSE(report) << part;
    EXPECT_NE(report.error().message.find(part), std::string::npos) << report.error().message;
  };
  refused([](auto& o) { o.rounds = 0; }, "rounds=0");
  refused([](auto& o) { o.tokens = {0}; }, "tokens=0");
  refused([](auto& o) { o.tokens = {65537}; }, "tokens=65537");
  refused([](auto& o) { o.seconds = -1; }, "seconds=-1");
  refused([](auto& o) { o.least_gain = -0.1; }, "least_gain");
  Plan plan = simulated_plan();
  EXPECT_FALSE(refine_plan(plan, nullptr, {}));
  EXPECT_FALSE(refine_plan(plan, [](const Plan&) -> Result<double> { return 0.0; }, {}));
}

// ---- the C interface of plans ---------------------------------------------------------------------------------------

struct CContext {
  Step* step;
  int progress_calls = 0;
};

double c_step(void* context, const unweight_plan* plan) {
  auto& self = *static_cast<CContext*>(context);
  std::size_t bytes = 0;
  EXPECT_EQ(unweight_plan_text(plan, nullptr, 0, &bytes), UNWEIGHT_BUFFER_TOO_SMALL);
  std::string text(bytes, ' ');
  EXPECT_EQ(unweight_plan_text(plan, text.data(), text.size(), &bytes), UNWEIGHT_OK);
  return (*self.step)(parse_plan(text).value()).value();
}

int c_progress(void* context, const unweight_refine_progress* progress) {
  ++static_cast<CContext*>(context)->progress_calls;
  EXPECT_NE(std::string(progress->current), "");
  return 1;
}

TEST(CPlan, ReadsWritesAndRefines) {
  const Plan begin = parse_plan(plan_text(simulated_plan())).value();
  const std::string text = plan_text(begin);
  unweight_plan* plan = nullptr;
  ASSERT_EQ(unweight_plan_parse(text.data(), text.size(), &plan), UNWEIGHT_OK) << unweight_last_error_message();
  const TempFolder folder;
  const std::string path = (folder / "plan.json").native();
  ASSERT_EQ(unweight_plan_write(plan, path.c_str()), UNWEIGHT_OK);
  EXPECT_EQ(read_file(path), text);
  unweight_plan* read = nullptr;
  ASSERT_EQ(unweight_plan_read(path.c_str(), &read), UNWEIGHT_OK);
  unweight_plan_destroy(read);

  Step step(begin, 8, 0);
  CContext context{&step};
  const std::uint32_t tokens = 8;
  unweight_refine_options options{};
  options.struct_size = sizeof options;
  options.step_us = c_step;
  options.progress = c_progress;
  options.context = &context;
  options.tokens = &tokens;
  options.token_count = 1;
  unweight_refine_report report{};
  report.struct_size = sizeof report;
  ASSERT_EQ(unweight_plan_refine(plan, &options, &report), UNWEIGHT_OK) << unweight_last_error_message();
  EXPECT_EQ(report.struct_size, sizeof report);
  EXPECT_LT(report.best_us, report.first_us);
  EXPECT_GT(report.accepted, 0U);
  EXPECT_GT(context.progress_calls, 0);
  options.step_us = [](void*, const unweight_plan*) { return 0.0; };
  EXPECT_EQ(unweight_plan_refine(plan, &options, nullptr), UNWEIGHT_CANCELLED);
  options.step_us = nullptr;
  EXPECT_EQ(unweight_plan_refine(plan, &options, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_plan_destroy(plan);
}

TEST(CPlan, SaysWhatIsKeptRaw) {
  Plan begin = simulated_plan();
  begin.matrices[0].raw = 1;
  const std::string text = plan_text(begin);
  unweight_plan* plan = nullptr;
  ASSERT_EQ(unweight_plan_parse(text.data(), text.size(), &plan), UNWEIGHT_OK);
  int raw = -1;
  EXPECT_EQ(unweight_plan_keeps_raw(plan, begin.matrices[0].names[0].c_str(), &raw), UNWEIGHT_OK);
  EXPECT_EQ(raw, 1);
  EXPECT_EQ(unweight_plan_keeps_raw(plan, begin.matrices[0].names[1].c_str(), &raw), UNWEIGHT_OK);
  EXPECT_EQ(raw, 0);
  unweight_plan_destroy(plan);
}

TEST(CPlan, RefusesNullAndBadText) {
  unweight_plan* plan = reinterpret_cast<unweight_plan*>(8);
  EXPECT_EQ(unweight_plan_parse("{", 1, &plan), UNWEIGHT_BAD_JSON);
  EXPECT_EQ(plan, nullptr);
  EXPECT_EQ(unweight_plan_read("/no/such/plan.json", &plan), UNWEIGHT_NOT_FOUND);
  EXPECT_EQ(unweight_plan_read(nullptr, &plan), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_plan_parse(nullptr, 3, &plan), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_plan_parse("{}", 2, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_plan_write(nullptr, "x"), UNWEIGHT_INVALID_ARGUMENT);
  std::size_t bytes = 7;
  EXPECT_EQ(unweight_plan_text(nullptr, nullptr, 0, &bytes), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(bytes, 0U);
  int raw = 1;
  EXPECT_EQ(unweight_plan_keeps_raw(nullptr, "x", &raw), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_plan_refine(nullptr, nullptr, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_plan_destroy(nullptr);
}

}  // namespace
}  // namespace unweight::test
