// SPDX-License-Identifier: Apache-2.0
//
// What is kept raw and what is decoded to memory: the knapsack against brute force, objectives, budgets, the promise
// not to lose against cuBLAS.
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <tune/knapsack.hpp>
#include <unweight/tune.hpp>
#include <vector>

namespace unweight::test {
namespace {

using tune::fill_knapsack;
using tune::KnapsackKind;

double brute_force(const std::vector<KnapsackKind>& kinds, std::size_t from, std::uint64_t capacity) {
  if (from == kinds.size()) return 0;
  double best = 0;
  for (std::uint64_t count = 0; count <= kinds[from].count && count * kinds[from].bytes <= capacity; ++count) {
    const double gain = kinds[from].gain * static_cast<double>(count);
    best = std::max(best, gain + brute_force(kinds, from + 1, capacity - count * kinds[from].bytes));
  }
  return best;
}

TEST(Knapsack, AsGoodAsBruteForce) {
  std::mt19937_64 random(1);
  for (int repeat = 0; repeat < 2000; ++repeat) {
    std::vector<KnapsackKind> kinds(random() % 5);
    for (KnapsackKind& kind : kinds) {
      kind = {static_cast<double>(static_cast<int>(random() % 21) - 4), random() % 12, random() % 5};
    }
    const std::uint64_t capacity = random() % 60;
    const auto filled = fill_knapsack(kinds, capacity);
    ASSERT_EQ(filled.taken.size(), kinds.size());
    std::uint64_t bytes = 0;
    double gain = 0;
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      EXPECT_LE(filled.taken[k], kinds[k].count);
      bytes += filled.taken[k] * kinds[k].bytes;
      gain += static_cast<double>(filled.taken[k]) * kinds[k].gain;
    }
    EXPECT_LE(bytes, capacity);
    EXPECT_EQ(gain, filled.gain);
    EXPECT_EQ(filled.gain, brute_force(kinds, 0, capacity)) << repeat;
    EXPECT_TRUE(filled.optimal);
  }
}

TEST(Knapsack, LargeOnesAreQuickAndCutShortWhereTheyAreNot) {
  std::mt19937_64 random(2);
  std::vector<KnapsackKind> kinds(12);
  std::uint64_t all = 0;
  for (KnapsackKind& kind : kinds) {
    kind = {1e-3 * static_cast<double>(random() % 100000), 1'000'000 + random() % 1'000'000'000, 1 + random() % 6144};
    all += kind.bytes * kind.count;
  }
  const auto filled = fill_knapsack(kinds, all / 3, 100'000);
  EXPECT_GT(filled.gain, 0);
  const auto cut = fill_knapsack(kinds, all / 3, 5);
  EXPECT_FALSE(cut.optimal);
  EXPECT_LE(cut.gain, filled.gain);
  const auto everything = fill_knapsack(kinds, all);
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    EXPECT_EQ(everything.taken[k], kinds[k].gain > 0 ? kinds[k].count : 0);
  }
}

Measurement measured(Pipeline pipeline, double us, std::uint32_t stages = 3) {
  return {{pipeline, {.stages = stages}, {{us > 0 ? 1U : 0U}}}, us, 0};
}

/// Two kinds of matrices with given times at 1 and 256 tokens: `a` gains compressed, `b` loses at 256.
Plan two_kinds() {
  Plan plan;
  plan.origin = SimulatedBench().origin();
  plan.origin.memory_bytes = 1'000'000'000;
  const auto add = [&](std::uint64_t rows, BlobLayout layout, double few_us, double many_us, double cublas_few_us,
                       double cublas_many_us) {
    const Pipeline pipeline = layout == BlobLayout::kRaw ? Pipeline::kRaw : Pipeline::kFused;
    plan.weights.push_back({{rows, 1000, layout, ExceptionClass::kUsual},
                            0,
                            {{1, cublas_few_us, {measured(pipeline, few_us)}, {measured(pipeline, few_us)}},
                             {256, cublas_many_us, {measured(pipeline, many_us)}, {measured(pipeline, many_us)}}}});
  };
  add(1000, BlobLayout::kTiled, 7, 10, 10, 12);
  add(1000, BlobLayout::kRaw, 10, 12, 10, 12);
  add(2000, BlobLayout::kTiled, 19, 60, 20, 30);
  add(2000, BlobLayout::kRaw, 20, 30, 20, 30);
  return plan;
}

ModelMatrices two_kinds_model(std::size_t count = 4) {
  ModelMatrices model;
  model.model = "m";
  model.other_bytes = 10'000'000;
  model.kv_bytes_per_token = 1000;
  for (const auto& [kind, rows] : {std::pair("a", 1000U), {"b", 2000U}}) {
    PlanMatrices equal{kind, rows, 1000, ExceptionClass::kUsual, 1400ULL * rows, 2000ULL * rows, {}, 0};
    for (std::size_t i = 0; i < count; ++i) equal.names.push_back(kind + std::to_string(i));
    model.matrices.push_back(std::move(equal));
  }
  return model;
}

MemoryOptions options_of(Objective objective, std::uint64_t budget = 0) {
  MemoryOptions options;
  options.objective = objective;
  options.batch_sizes = {1, 256};
  options.memory_budget_bytes = budget;
  return options;
}

std::vector<std::uint64_t> raw_counts(const Plan& plan) {
  std::vector<std::uint64_t> counts;
  for (const PlanMatrices& equal : plan.matrices) counts.push_back(equal.raw);
  return counts;
}

using Counts = std::vector<std::uint64_t>;

TEST(MemoryPlan, ObjectivesDiffer) {
  Plan plan = two_kinds();
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kMemory)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 4}));
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kBalanced)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 4}));
  EXPECT_EQ(plan.request.objective, Objective::kBalanced);
  // Where batches are small nothing loses.
  MemoryOptions small = options_of(Objective::kBalanced);
  small.batch_sizes = {1};
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), small));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
}

TEST(MemoryPlan, LatencyTakesGainsThatBalancedDoesNotNeed) {
  Plan plan = two_kinds();
  // 2% slower than cuBLAS: within what balanced allows.
  plan.weights[2].cells[1] = {256, 30, {measured(Pipeline::kFused, 30.6)}, {measured(Pipeline::kFused, 30.6)}};
  plan.weights[2].cells[0] = {1, 20, {measured(Pipeline::kFused, 20.4)}, {measured(Pipeline::kFused, 20.4)}};
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kBalanced)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 4}));
  // Differences below the noise are none.
  plan.weights[2].cells[1] = {256, 30, {measured(Pipeline::kFused, 30.1)}, {measured(Pipeline::kFused, 30.1)}};
  plan.weights[2].cells[0] = {1, 20, {measured(Pipeline::kFused, 20.05)}, {measured(Pipeline::kFused, 20.05)}};
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency)));
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
}

TEST(MemoryPlan, TheGuaranteeHoldsWhereThereIsMemory) {
  for (const Objective objective : {Objective::kLatency, Objective::kBalanced}) {
    Plan plan = two_kinds();
    const auto report = plan_memory(plan, two_kinds_model(), options_of(objective));
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->warnings.empty());
    for (const KindCost& kind : report->kinds) {
      for (std::size_t b = 0; b < 2; ++b) {
        const double us = kind.raw == kind.count ? kind.raw_us[b] : kind.compressed_us[b];
        EXPECT_GE(kind.cublas_us[b] / us, kNeverBelow) << kind.kind << b;
      }
    }
  }
}

TEST(MemoryPlan, WhatMustLoseIsSaid) {
  Plan plan = two_kinds();
  const auto report = plan_memory(plan, two_kinds_model(), options_of(Objective::kMemory));
  ASSERT_TRUE(report);
  ASSERT_EQ(report->warnings.size(), 1U);
  EXPECT_EQ(report->warnings[0], "b, 256 tokens: 0.50 times as fast as cuBLAS, and kept compressed");
}

TEST(MemoryPlan, BudgetsDecideHowMany) {
  // A raw `b` takes 1.2 MB more than a compressed one.
  const std::uint64_t least = 10'000'000 + 4 * 1'400'000 + 4 * 2'800'000;
  const std::uint64_t workspace = 10'000'000 + (std::uint64_t{32} << 20);
  for (std::uint64_t fits = 0; fits <= 4; ++fits) {
    Plan plan = two_kinds();
    const std::uint64_t budget = least + workspace + fits * 1'200'000 + 1'199'999;
    const auto report = plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency, budget));
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(raw_counts(plan), (Counts{0, fits})) << fits;
    EXPECT_LE(10'000'000 + report->chosen.matrix_bytes + report->chosen.scratch_bytes, budget);
    EXPECT_TRUE(report->optimal);
  }
  Plan plan = two_kinds();
  const auto tight = plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency, least + 10'000'000));
  ASSERT_TRUE(tight) << tight.error().message;
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
  const auto refused = plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency, least));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find(std::to_string(least)), std::string::npos) << refused.error().message;
}

TEST(MemoryPlan, AScratchIsTakenWhereItPays) {
  Plan plan = two_kinds();
  plan.weights[2].cells[1].isolated =
      plan.weights[2].cells[1].dependent = {measured(Pipeline::kDecoded, 31), measured(Pipeline::kFused, 60)};
  auto report = plan_memory(plan, two_kinds_model(), options_of(Objective::kBalanced));
  ASSERT_TRUE(report);
  // Decoded, `b` is within 3% of cuBLAS: compressed after all, for a scratch of one matrix.
  EXPECT_EQ(raw_counts(plan), (Counts{0, 0}));
  EXPECT_EQ(plan.weights[2].cells[1].dependent[0].choice.pipeline, Pipeline::kDecoded);
  EXPECT_GT(report->chosen.scratch_bytes, 2U * 2000 * 1000);
  report = plan_memory(plan, two_kinds_model(), options_of(Objective::kMemory));
  EXPECT_EQ(plan.weights[2].cells[1].dependent[0].choice.pipeline, Pipeline::kFused);
  EXPECT_LT(report->chosen.scratch_bytes, 2U * 2000 * 1000 + 10'000'000);
  // And back again.
  ASSERT_TRUE(plan_memory(plan, two_kinds_model(), options_of(Objective::kBalanced)));
  EXPECT_EQ(plan.weights[2].cells[1].dependent[0].choice.pipeline, Pipeline::kDecoded);
}

TEST(MemoryPlan, ReportsBytesTimeAndWhatFits) {
  Plan plan = two_kinds();
  const auto report = plan_memory(plan, two_kinds_model(), options_of(Objective::kLatency));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->all_cublas.matrix_bytes, 4U * 2'000'000 + 4U * 4'000'000);
  EXPECT_EQ(report->all_compressed.matrix_bytes, 4U * 1'400'000 + 4U * 2'800'000);
  EXPECT_EQ(report->chosen.matrix_bytes, 4U * 1'400'000 + 4U * 4'000'000);
  EXPECT_EQ(report->all_cublas.us, (std::vector<double>{120, 168}));
  EXPECT_EQ(report->all_compressed.us, (std::vector<double>{104, 280}));
  EXPECT_EQ(report->chosen.us, (std::vector<double>{108, 160}));
  const std::uint64_t all = 10'000'000 + report->chosen.matrix_bytes + report->chosen.scratch_bytes;
  EXPECT_EQ(report->chosen.models_on_gpu, 1'000'000'000 / all);
  EXPECT_EQ(report->chosen.kv_tokens_on_gpu, (1'000'000'000 - all) / 1000);
  EXPECT_GT(report->chosen.models_on_gpu, 0U);
  // The same from the plan alone.
  const auto again = memory_report(plan);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->chosen.us, report->chosen.us);
  EXPECT_EQ(again->chosen.matrix_bytes, report->chosen.matrix_bytes);
}

TEST(MemoryPlan, DecidingTwiceChangesNothing) {
  for (const Objective objective : {Objective::kLatency, Objective::kMemory, Objective::kBalanced}) {
    Plan once = simulated_plan({.objective = objective, .batch_sizes = {1, 64, 2048}});
    Plan twice = once;
    ASSERT_TRUE(plan_memory(twice, simulated_model(), {.objective = objective, .batch_sizes = {1, 64, 2048}}));
    EXPECT_EQ(once, twice);
  }
}

TEST(MemoryPlan, BatchSizesBetweenCellsAreSaid) {
  Plan plan = two_kinds();
  MemoryOptions options = options_of(Objective::kLatency);
  options.batch_sizes = {16};
  const auto report = plan_memory(plan, two_kinds_model(), options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(std::ranges::any_of(report->warnings, [](const std::string& warning) {
    return warning.find("16 tokens were not measured; those of 256 are used") != warning.npos;
  }));
}

TEST(MemoryPlan, RefusesWhatCannotBe) {
  const auto refused = [](auto change, const std::string& part) {
    Plan plan = two_kinds();
    ModelMatrices model = two_kinds_model();
    MemoryOptions options = options_of(Objective::kLatency);
    change(plan, model, options);
    const auto report = plan_memory(plan, model, options);
    ASSERT_FALSE(report) << part;
    EXPECT_EQ(report.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(report.error().message.find(part), std::string::npos) << report.error().message;
  };
  refused([](auto&, auto&, auto& o) { o.batch_sizes.clear(); }, "no batch sizes");
  refused([](auto&, auto&, auto& o) { o.batch_sizes = {0}; }, "batch size 0");
  refused([](auto&, auto&, auto& o) { o.batch_sizes = {65537}; }, "batch size 65537");
  refused([](auto&, auto&, auto& o) { o.batch_sizes = {8192}; }, "nothing near 8192 tokens");
  refused([](auto&, auto& m, auto&) { m.matrices.clear(); }, "no matrices");
  refused([](auto&, auto& m, auto&) { m.matrices[0].rows = 7; }, "no entry for 7 x 1000");
  refused([](auto& p, auto&, auto&) { p.weights[0].cells[0].dependent[0].us = 0; }, "no times");
  refused(
      [](auto& p, auto&, auto&) {
        for (auto* list : {&p.weights[0].cells[0].isolated, &p.weights[0].cells[0].dependent}) {
          (*list)[0].choice.pipeline = Pipeline::kDecoded;
        }
      },
      "no choice without a scratch");
}

}  // namespace
}  // namespace unweight::test
