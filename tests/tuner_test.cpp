// SPDX-License-Identifier: Apache-2.0
//
// The tuner with a simulated device: what it chooses, and what it does when things go wrong or time is short.
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <tune/choice.hpp>
#include <tune/statistics.hpp>
#include <tune/tuner.hpp>
#include <unweight/plan.hpp>
#include <vector>

namespace unweight::test {
namespace {

constexpr WeightClass kSmall{1024, 4096, BlobLayout::kTiled, ExceptionClass::kUsual};
constexpr WeightClass kMedium{4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual};
constexpr WeightClass kLarge{28672, 4096, BlobLayout::kTiled, ExceptionClass::kUsual};

std::vector<std::uint32_t> tokens_up_to(std::uint32_t most) {
  std::vector<std::uint32_t> tokens;
  for (std::uint32_t n = 1; n <= most; n *= 2) tokens.push_back(n);
  return tokens;
}

TuneOptions options_for(std::vector<WeightClass> weights, std::uint32_t most_tokens = 4096) {
  TuneOptions options;
  options.weights = std::move(weights);
  options.tokens = tokens_up_to(most_tokens);
  options.command = "test";
  return options;
}

const PlanCell& cell_of(const Plan& plan, const WeightClass& weight, std::uint32_t tokens) {
  const PlanWeight* entry = plan.find(weight);
  EXPECT_NE(entry, nullptr) << describe(weight);
  const auto cell = std::ranges::find(entry->cells, tokens, &PlanCell::tokens);
  EXPECT_NE(cell, entry->cells.end()) << tokens;
  return *cell;
}

WeightClass raw_of(WeightClass weight) {
  weight.layout = BlobLayout::kRaw;
  return weight;
}

TEST(Statistics, MediansAndNoise) {
  EXPECT_EQ(tune::median({3, 1, 2}), 2);
  EXPECT_EQ(tune::median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(tune::median({7}), 7);
  EXPECT_EQ(tune::quantile({1, 2, 3, 4, 5}, 0.25), 2);
  EXPECT_EQ(tune::noise_of({5, 5, 5}), 0);
  EXPECT_NEAR(tune::noise_of({90, 95, 100, 105, 110}), 0.05, 1e-12);
  EXPECT_EQ(tune::noise_of({0, 0}), 0);
}

TEST(Tuner, ChoosesWithinTwoPercentOfAnExhaustiveSearch) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SimulatedBench bench({.seed = seed});
    const auto report = tune::tune(bench, options_for({kSmall, kMedium, kLarge}));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_TRUE(report->warnings.empty());
    for (const WeightClass& weight : {kSmall, kMedium, kLarge}) {
      ASSERT_TRUE(bench.open(weight, 4096));
      for (const std::uint32_t tokens : tokens_up_to(4096)) {
        for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
          const PlanCell& cell = cell_of(report->plan, layout == BlobLayout::kRaw ? raw_of(weight) : weight, tokens);
          EXPECT_LE(cell.isolated.front().us, 1.02 * bench.best_us(layout, tokens, false))
              << describe(weight) << tokens;
          EXPECT_LE(cell.dependent.front().us, 1.02 * bench.best_us(layout, tokens, true))
              << describe(weight) << tokens;
          EXPECT_GT(cell.cublas_us, 0);
        }
      }
    }
  }
}

TEST(Tuner, ExhaustiveSearchFindsTheBest) {
  SimulatedBench bench;
  TuneOptions options = options_for({kMedium}, 256);
  options.exhaustive = true;
  options.seconds = 0;
  const auto report = tune::tune(bench, options);
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_TRUE(bench.open(kMedium, 256));
  for (const std::uint32_t tokens : tokens_up_to(256)) {
    const PlanCell& cell = cell_of(report->plan, kMedium, tokens);
    EXPECT_EQ(cell.isolated.front().us, bench.best_us(BlobLayout::kTiled, tokens, false)) << tokens;
    EXPECT_EQ(cell.dependent.front().us, bench.best_us(BlobLayout::kTiled, tokens, true)) << tokens;
  }
  SimulatedBench quick;
  EXPECT_LT(tune::tune(quick, options_for({kMedium}, 256))->candidates_timed, report->candidates_timed);
}

TEST(Tuner, EveryTimedCandidateWasCheckedFirst) {
  SimulatedBench bench;
  const auto report = tune::tune(bench, options_for({kMedium}, 64));
  ASSERT_TRUE(report);
  EXPECT_GE(bench.checks, report->candidates_timed);
  EXPECT_GT(report->candidates_timed, 0U);
  EXPECT_GT(report->candidates_refused, 0U);
  // Each reason once, with an example.
  EXPECT_TRUE(std::ranges::any_of(report->refusals, [](const std::string& refusal) {
    return refusal.find("warpgroup needs strips=4, 8, 12 or 16 (") != std::string::npos;
  }));
}

TEST(Tuner, AWrongKernelEndsEverything) {
  SimulationOptions simulation;
  simulation.wrong_config = "fused, strips 2, stages 4";
  SimulatedBench bench(simulation);
  const auto report = tune::tune(bench, options_for({kMedium}, 8));
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, ErrorCode::kNotIdentical);
  EXPECT_NE(report.error().message.find("4096 x 4096, tiled, 1 tokens"), std::string::npos) << report.error().message;
  EXPECT_NE(report.error().message.find("strips 2"), std::string::npos);
}

TEST(Tuner, SamePlanForTheSameTimes) {
  for (const double noise : {0.0, 0.02}) {
    SimulatedBench a({.seed = 5, .noise = noise}), b({.seed = 5, .noise = noise});
    const auto first = tune::tune(a, options_for({kSmall, kLarge}, 512)),
               second = tune::tune(b, options_for({kSmall, kLarge}, 512));
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->plan, second->plan);
    EXPECT_EQ(plan_text(first->plan), plan_text(second->plan));
  }
}

TEST(Tuner, NoiseCostsLittle) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SimulatedBench bench({.seed = seed, .noise = 0.01});
    const auto report = tune::tune(bench, options_for({kMedium}, 1024));
    ASSERT_TRUE(report);
    ASSERT_TRUE(bench.open(kMedium, 1024));
    for (const std::uint32_t tokens : tokens_up_to(1024)) {
      const Choice& chosen = cell_of(report->plan, kMedium, tokens).isolated.front().choice;
      EXPECT_LE(bench.true_us({BlobLayout::kTiled, chosen, false}, tokens),
                1.04 * bench.best_us(BlobLayout::kTiled, tokens, false))
          << tokens;
    }
  }
}

TEST(Tuner, OfEqualOnesTheFirstIsChosen) {
  SimulationOptions simulation;
  simulation.variation = 0;
  SimulatedBench bench(simulation);
  // Without variation the kinds of configurations with as many stages take the same.
  const auto report = tune::tune(bench, options_for({kMedium}, 8));
  ASSERT_TRUE(report);
  for (const std::uint32_t tokens : tokens_up_to(8)) {
    EXPECT_EQ(describe(cell_of(report->plan, kMedium, tokens).isolated.front().choice), "fused, strips 1, stages 3");
  }
}

TEST(Tuner, IncumbentsStayWithinTheNoise) {
  SimulationOptions simulation;
  simulation.variation = 0.1;
  SimulatedBench bench(simulation);
  TuneOptions options = options_for({kMedium}, 8);
  const Plan first = tune::tune(bench, options)->plan;
  const PlanCell& before = cell_of(first, kMedium, 8);
  const Choice best = before.isolated.front().choice, second = before.isolated.at(1).choice;
  ASSERT_FALSE(best == second);
  const auto tuned_again = [&](double factor) {
    Plan incumbent = first;
    for (PlanWeight& entry : incumbent.weights) {
      if (!(entry.weight == kMedium)) continue;
      std::swap(entry.cells.back().isolated[0], entry.cells.back().isolated[1]);
    }
    SimulatedBench again(simulation);
    EXPECT_TRUE(again.open(kMedium, 8));
    const double best_us = again.true_us({BlobLayout::kTiled, best, false}, 8);
    again.factors[describe(second)] = factor * best_us / again.true_us({BlobLayout::kTiled, second, false}, 8);
    options.incumbent = &incumbent;
    return cell_of(tune::tune(again, options)->plan, kMedium, 8).isolated.front().choice;
  };
  EXPECT_EQ(tuned_again(1.004), second);  // slower, but not beyond the least noise
  EXPECT_EQ(tuned_again(1.02), best);
}

TEST(Tuner, ForeignIncumbentsDoNotCount) {
  SimulatedBench bench;
  TuneOptions options = options_for({kMedium}, 8);
  Plan incumbent = tune::tune(bench, options)->plan;
  incumbent.origin.gpu = "another";
  options.incumbent = &incumbent;
  SimulatedBench again;
  const auto report = tune::tune(again, options);
  ASSERT_TRUE(report);
  ASSERT_EQ(report->warnings.size(), 1U);
  EXPECT_NE(report->warnings[0].find("another"), std::string::npos);
}

TEST(Tuner, IllegalIncumbentsAreDropped) {
  SimulatedBench bench;
  TuneOptions options = options_for({kMedium}, 8);
  Plan incumbent = tune::tune(bench, options)->plan;
  const Choice best = cell_of(incumbent, kMedium, 8).isolated.front().choice;
  for (PlanWeight& entry : incumbent.weights) {
    for (PlanCell& cell : entry.cells) {
      for (auto* list : {&cell.isolated, &cell.dependent}) {
        if (list->front().choice.pipeline == Pipeline::kFused) list->front().choice.config.strips = 3;
      }
    }
  }
  options.incumbent = &incumbent;
  SimulatedBench again;
  const auto report = tune::tune(again, options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(cell_of(report->plan, kMedium, 8).isolated.front().choice, best);
  EXPECT_TRUE(std::ranges::any_of(report->refusals, [](const auto& r) { return r.find("strips=3") != r.npos; }));
}

TEST(Tuner, KeepsToItsTime) {
  for (const double seconds : {2.0, 5.0, 15.0}) {
    SimulatedBench bench({.candidate_s = 0.02});
    const double begin = bench.now_s();
    TuneOptions options = options_for({kSmall, kMedium, kLarge});
    options.seconds = seconds;
    const auto report = tune::tune(bench, options);
    ASSERT_TRUE(report) << report.error().message;
    // What was begun is finished: the least that a cell takes.
    EXPECT_LT(bench.now_s() - begin, seconds + 3) << seconds;
    EXPECT_NEAR(report->seconds, bench.now_s() - begin, 1e-9);
    std::size_t cells = 0;
    for (const PlanWeight& entry : report->plan.weights)
      cells += entry.weight.layout == BlobLayout::kTiled ? entry.cells.size() : 0;
    EXPECT_EQ(cells == 39, report->warnings.empty()) << cells;
  }
  SimulatedBench fast, slow({.candidate_s = 0.02});
  TuneOptions options = options_for({kSmall, kMedium, kLarge});
  options.seconds = 20;
  EXPECT_LT(tune::tune(slow, options)->candidates_timed, tune::tune(fast, options)->candidates_timed);
}

TEST(Tuner, ABenchOf8BInOneMinute) {
  // As long as a candidate takes a few milliseconds beside its samples, the five shapes of Llama 3.1 8B and 13 buckets
  // need no shortcuts.
  SimulatedBench bench({.candidate_s = 0.004, .open_s = 1.5});
  const auto model = known_model_matrices("llama-3.1-8b", Merging::kMerged).value();
  TuneOptions options = options_for(weight_classes(model));
  const auto report = tune::tune(bench, options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->warnings.empty());
  EXPECT_LT(report->seconds, 60);
  EXPECT_EQ(report->plan.weights.size(), 10U);
}

TEST(Tuner, WithoutCuBlasThereIsTheFusedKernelAlone) {
  SimulatedBench bench({.cublas = false});
  const auto report = tune::tune(bench, options_for({kMedium}));
  ASSERT_TRUE(report) << report.error().message;
  for (const PlanWeight& entry : report->plan.weights) {
    for (const PlanCell& cell : entry.cells) {
      EXPECT_EQ(cell.cublas_us, 0);
      for (const Measurement& measured : cell.isolated) EXPECT_EQ(measured.choice.pipeline, Pipeline::kFused);
    }
  }
}

TEST(Tuner, DecodingPaysForManyTokens) {
  SimulatedBench bench;
  const auto report = tune::tune(bench, options_for({kLarge}, 16384));
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(cell_of(report->plan, kLarge, 16).isolated.front().choice.pipeline, Pipeline::kFused);
  EXPECT_EQ(cell_of(report->plan, kLarge, 16384).isolated.front().choice.pipeline, Pipeline::kDecoded);
  // The best of the other pipeline stays in the list, for callers without a scratch.
  EXPECT_TRUE(std::ranges::any_of(cell_of(report->plan, kLarge, 16384).isolated,
                                  [](const Measurement& m) { return m.choice.pipeline == Pipeline::kFused; }));
}

TEST(Tuner, ReportsProgressAndStops) {
  SimulatedBench bench;
  TuneOptions options = options_for({kSmall, kMedium}, 8);
  std::vector<TuneProgress> seen;
  options.progress = [&](const TuneProgress& progress) {
    seen.push_back(progress);
    return true;
  };
  ASSERT_TRUE(tune::tune(bench, options));
  ASSERT_GE(seen.size(), 8U);
  EXPECT_EQ(seen.back().cells_done, 8U);
  for (std::size_t i = 1; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].cells_total, 8U);
    EXPECT_GE(seen[i].cells_done, seen[i - 1].cells_done);
    EXPECT_GE(seen[i].seconds, seen[i - 1].seconds);
  }
  options.progress = [](const TuneProgress& progress) { return progress.cells_done < 3; };
  const auto stopped = tune::tune(bench, options);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
}

TEST(Tuner, RefusesUnsoundOptions) {
  const auto refused = [](auto change, const std::string& part) {
    SimulatedBench bench;
    TuneOptions options = options_for({kMedium}, 8);
    change(options);
    const auto report = tune::tune(bench, options);
    ASSERT_FALSE(report) << part;
    EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(report.error().message.find(part), std::string::npos) << report.error().message;
  };
  refused([](TuneOptions& o) { o.weights.clear(); }, "no weights");
  refused([](TuneOptions& o) { o.weights[0].rows = 0; }, "empty");
  refused([](TuneOptions& o) { o.tokens.clear(); }, "no numbers of tokens");
  refused([](TuneOptions& o) { o.tokens.push_back(0); }, "tokens=0");
  refused([](TuneOptions& o) { o.tokens.push_back(65537); }, "tokens=65537");
  refused([](TuneOptions& o) { o.seconds = -1; }, "seconds=-1");
}

TEST(Tuner, EqualWeightsAndTokensAreMeasuredOnce) {
  SimulatedBench bench;
  TuneOptions options = options_for({kMedium, kMedium, raw_of(kMedium)}, 4);
  options.tokens = {3, 4, 4, 1};
  const auto report = tune::tune(bench, options);
  ASSERT_TRUE(report);
  ASSERT_EQ(report->plan.weights.size(), 2U);
  for (const PlanWeight& entry : report->plan.weights) {
    ASSERT_EQ(entry.cells.size(), 2U);
    EXPECT_EQ(entry.cells[0].tokens, 1U);
    EXPECT_EQ(entry.cells[1].tokens, 4U);
  }
}

}  // namespace
}  // namespace unweight::test
