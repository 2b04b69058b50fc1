// SPDX-License-Identifier: Apache-2.0
//
// Plans as values: buckets, names, and the lookup of a choice for every number of tokens.
#include "support/simulated_bench.hpp"
#include <algorithm>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>
#include <tune/cost_model.hpp>
#include <tune/resolve.hpp>
#include <tune/tables.hpp>
#include <unweight/version.h>
#include <vector>

namespace unweight::test {
namespace {

constexpr WeightClass kWeight{4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual};

Choice fused(std::uint32_t strips, std::uint32_t stages, bool warpgroup = false) {
  return {Pipeline::kFused, {.strips = strips, .stages = stages, .warpgroup = warpgroup}, {}};
}

Choice dense(Pipeline pipeline, std::uint64_t algorithm) { return {pipeline, {}, {{algorithm, 7}}}; }

/// A plan for the simulated GPU with one weight.
Plan plan_with(std::vector<PlanCell> cells, const WeightClass& weight = kWeight) {
  Plan plan;
  plan.origin = SimulatedBench().origin();
  plan.weights.push_back({weight, 1000, std::move(cells)});
  return plan;
}

PlanCell cell(std::uint32_t tokens, const Choice& isolated) { return {tokens, 0, {{isolated, 1, 0}}, {}}; }

void expect_refused(const Result<tune::ChoiceTable>& result, const std::string& part) {
  ASSERT_FALSE(result) << part;
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

bool has_note(const tune::ChoiceTable& table, const std::string& part) {
  return std::ranges::any_of(table.notes, [&](const std::string& note) { return note.find(part) != note.npos; });
}

// ---- values ---------------------------------------------------------------------------------------------------------

TEST(Plan, BucketsCoverEveryNumberOfTokens) {
  std::uint32_t next = 1;
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
    EXPECT_EQ(bucket_begin(bucket), next);
    for (const std::uint32_t tokens : {bucket_begin(bucket), bucket_tokens(bucket)}) {
      EXPECT_EQ(token_bucket(tokens), bucket) << tokens;
    }
    next = bucket_tokens(bucket) + 1;
  }
  EXPECT_EQ(next, kMaxMatmulTokens + 1);
}

TEST(Plan, DescribesChoices) {
  EXPECT_EQ(describe(fused(2, 4)), "fused, strips 2, stages 4");
  EXPECT_EQ(describe(Choice{Pipeline::kFused, {.split = true, .dependent_launch = true, .warpgroup = true}, {}}),
            "fused, strips 2, stages 4, split, dependent launch, warpgroup");
  EXPECT_EQ(describe(Choice{Pipeline::kDecoded, {}, {}}), "decoded, first proposal of cuBLASLt");
  EXPECT_NE(describe(dense(Pipeline::kRaw, 1)), describe(dense(Pipeline::kRaw, 2)));
  EXPECT_EQ(describe(kWeight), "4096 x 4096, tiled");
  EXPECT_EQ(describe(WeightClass{1, 2, BlobLayout::kTiled, ExceptionClass::kMany}), "1 x 2, tiled, many exceptions");
}

TEST(Plan, ChoicesCompareWhatTheirPipelineLooksAt) {
  Choice a = fused(2, 4), b = a;
  b.algorithm.words[3] = 1;
  EXPECT_EQ(a, b);
  b.config.warpgroup = true;
  EXPECT_FALSE(a == b);
  a.pipeline = b.pipeline = Pipeline::kRaw;
  EXPECT_FALSE(a == b);
  b.algorithm = a.algorithm;
  EXPECT_EQ(a, b);
}

TEST(Plan, AlgorithmsAreText) {
  CublasAlgorithm algorithm{{0x0123456789abcdef, 0, ~0ULL, 4, 5, 6, 7, 8}}, read;
  const std::string text = tune::algorithm_text(algorithm);
  EXPECT_EQ(text.size(), 128U);
  ASSERT_TRUE(tune::parse_algorithm(text, read));
  EXPECT_EQ(read, algorithm);
  EXPECT_FALSE(tune::parse_algorithm(text.substr(1), read));
  EXPECT_FALSE(tune::parse_algorithm("x" + text.substr(1), read));
  EXPECT_FALSE(tune::parse_algorithm(" " + text.substr(1), read));
  EXPECT_FALSE(tune::parse_algorithm("", read));
}

TEST(Plan, ClassesOfExceptions) {
  EXPECT_EQ(exception_class(0, 0), ExceptionClass::kUsual);
  EXPECT_EQ(exception_class(13 * 100, 100), ExceptionClass::kUsual);
  EXPECT_EQ(exception_class(100 * 100, 100), ExceptionClass::kMany);
  EXPECT_EQ(exception_class(512 * 100, 100), ExceptionClass::kDense);
  BlobInfo info;
  info.tile_count = 10;
  info.exception_count = 130;
  EXPECT_EQ(exception_class(info), ExceptionClass::kUsual);
  info.escaped_tiles = 10;
  EXPECT_EQ(exception_class(info), ExceptionClass::kDense);
}

TEST(Plan, KeepsTensorsRawByTheirOwnAndTheirMergedNames) {
  Plan plan;
  plan.matrices.push_back(
      {"qkv_proj", 6144, 4096, ExceptionClass::kUsual, 1, 2, {"l.0.qkv_proj.weight", "l.1.qkv_proj.weight"}, 1});
  plan.matrices.push_back({"o_proj", 4096, 4096, ExceptionClass::kUsual, 1, 2, {"l.0.o_proj.weight"}, 0});
  plan.matrices.push_back({"gate_up_proj", 8, 8, ExceptionClass::kUsual, 1, 2, {"l.0.gate_up_proj.weight"}, 1});
  for (const char* name : {"l.0.qkv_proj.weight", "l.0.q_proj.weight", "l.0.k_proj.weight", "l.0.v_proj.weight",
                           "l.0.gate_proj.weight", "l.0.up_proj.weight"}) {
    EXPECT_TRUE(plan.keeps_raw(name)) << name;
  }
  for (const char* name : {"l.1.q_proj.weight", "l.0.o_proj.weight", "l.0.down_proj.weight", ""}) {
    EXPECT_FALSE(plan.keeps_raw(name)) << name;
  }
}

TEST(Plan, SuitsItsOwnDeviceAlone) {
  Plan plan;
  plan.origin = SimulatedBench().origin();
  const DeviceIdentity own{plan.origin.gpu, plan.origin.multiprocessors, plan.origin.kernels};
  EXPECT_TRUE(plan_suits(plan, own));
  const auto expect = [&](const Plan& changed, const DeviceIdentity& device, const std::string& part) {
    const auto suits = plan_suits(changed, device);
    ASSERT_FALSE(suits);
    EXPECT_EQ(suits.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(suits.error().message.find(part), std::string::npos) << suits.error().message;
  };
  expect(plan, {"NVIDIA H200", own.multiprocessors, own.kernels}, "NVIDIA H200");
  expect(plan, {own.gpu, 114, own.kernels}, "114");
  expect(plan, {own.gpu, own.multiprocessors, "fedcba9876543210"}, "fedcba9876543210");
  Plan other_version = plan;
  other_version.origin.library = "0.9.0";
  expect(other_version, own, "0.9.0");
  other_version.origin.library = UNWEIGHT_VERSION_STRING ".7";  // a patch release
  EXPECT_TRUE(plan_suits(other_version, own));
}

// ---- candidates -----------------------------------------------------------------------------------------------------

TEST(Candidates, EveryCombinationIsLegalOrRefusedWithAReason) {
  for (const bool dependent : {false, true}) {
    for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
      std::size_t combinations = 0;
      for (const std::uint32_t strips : tune::members::kStrips) {  // where stages are not looked at once is enough
        const bool staged = MatmulConfig{.strips = strips}.uses_stages(bucket_tokens(bucket));
        combinations += 2 * 2 * (staged ? std::size(tune::members::kStages) : 1);
      }
      const auto all = tune::config_candidates(bucket, dependent, simulated_can_implement);
      EXPECT_EQ(all.legal.size() + all.refused.size(), combinations);
      EXPECT_FALSE(all.legal.empty());
      std::set<std::string> names;
      for (const MatmulConfig& config : all.legal) {
        EXPECT_EQ(config.dependent_launch, dependent);
        names.insert(tune::describe_config(config));
        for (std::uint32_t tokens = bucket_begin(bucket); tokens <= std::min(bucket_tokens(bucket), 300U); ++tokens) {
          EXPECT_TRUE(simulated_can_implement(tokens, config)) << tokens << ": " << tune::describe_config(config);
        }
      }
      for (const tune::RefusedConfig& refused : all.refused) {
        names.insert(tune::describe_config(refused.config));
        EXPECT_FALSE(refused.reason.empty());
      }
      EXPECT_EQ(names.size(), combinations);
    }
  }
}

TEST(Candidates, ABucketIsAsLegalAsItsLeastLegalNumber) {
  const MatmulConfig config;
  const auto all_but = [](std::uint32_t refused) {
    return [refused](std::uint32_t tokens, const MatmulConfig&) -> Result<void> {
      if (tokens != refused) return {};
      return fail(ErrorCode::kInvalidArgument, "not " + std::to_string(tokens));
    };
  };
  EXPECT_TRUE(tune::legal_in_bucket(5, config, all_but(16)));
  EXPECT_TRUE(tune::legal_in_bucket(5, config, all_but(33)));
  for (const std::uint32_t tokens : {17U, 25U, 32U}) {
    const auto legal = tune::legal_in_bucket(5, config, all_but(tokens));
    ASSERT_FALSE(legal);
    EXPECT_EQ(legal.error().message, "not " + std::to_string(tokens));
  }
  EXPECT_FALSE(tune::legal_in_bucket(16, config, all_but(kMaxMatmulTokens)));
  EXPECT_FALSE(tune::legal_in_bucket(16, config, all_but(32769)));
}

// ---- lookup ---------------------------------------------------------------------------------------------------------

TEST(Lookup, WithoutPlansTheRulesDecide) {
  const auto table = tune::resolve({}, simulated_rules(kWeight));
  ASSERT_TRUE(table) << table.error().message;
  for (std::uint32_t tokens = 1; tokens <= kMaxMatmulTokens; tokens += std::max(1U, tokens / 7)) {
    const ResolvedChoice& found = table->at(tokens);
    EXPECT_EQ(found.source, ChoiceSource::kCostModel);
    EXPECT_EQ(found.cell_tokens, 0U);
    EXPECT_EQ(found.choice.pipeline == Pipeline::kDecoded,
              bucket_tokens(token_bucket(tokens)) >= tune::kDecodedFromTokens);
    if (found.choice.pipeline == Pipeline::kFused) {
      EXPECT_TRUE(simulated_can_implement(tokens, found.choice.config));
    }
    EXPECT_TRUE(simulated_can_implement(tokens, table->fused[token_bucket(tokens)]));
  }
  EXPECT_TRUE(table->notes.empty());
}

TEST(Lookup, PipelinesThatDoNotExistAreNotChosen) {
  auto rules = simulated_rules(kWeight);
  rules.scratch = false;
  const auto pipelines = [&] {
    std::set<Pipeline> found;
    const tune::ChoiceTable table = tune::resolve({}, rules).value();
    for (const ResolvedChoice& resolved : table.buckets) found.insert(resolved.choice.pipeline);
    return found;
  };
  EXPECT_EQ(pipelines(), std::set{Pipeline::kFused});
  rules.weight.layout = BlobLayout::kRaw;
  EXPECT_EQ(pipelines(), std::set{Pipeline::kRaw});
  rules.cublaslt = 0;
  EXPECT_EQ(pipelines(), std::set{Pipeline::kFused});
  rules.weight.layout = BlobLayout::kTiled;
  rules.scratch = true;
  EXPECT_EQ(pipelines(), std::set{Pipeline::kFused});
}

TEST(Lookup, OverrideThenPlanThenTableThenRules) {
  const Plan table = plan_with({cell(1, fused(1, 2)), cell(2, fused(1, 2)), cell(4, fused(1, 2))});
  const Plan plan = plan_with({cell(1, fused(1, 3)), cell(2, fused(1, 3))});
  const std::vector<TokenChoice> overrides = {{1, fused(1, 4)}};
  const std::vector<Plan> builtin = {table};
  const auto resolved = tune::resolve({overrides, &plan, builtin}, simulated_rules(kWeight));
  ASSERT_TRUE(resolved) << resolved.error().message;
  EXPECT_EQ(resolved->at(1).choice, fused(1, 4));
  EXPECT_EQ(resolved->at(1).source, ChoiceSource::kOverride);
  EXPECT_EQ(resolved->at(2).choice, fused(1, 3));
  EXPECT_EQ(resolved->at(2).source, ChoiceSource::kPlan);
  // Buckets near the plan's are the plan's, too; two buckets beyond its last one are the table's, and so on.
  EXPECT_EQ(resolved->at(8).source, ChoiceSource::kPlan);
  EXPECT_EQ(resolved->at(16).source, ChoiceSource::kBuiltinTable);
  EXPECT_EQ(resolved->at(16).cell_tokens, 4U);
  EXPECT_EQ(resolved->at(32).source, ChoiceSource::kCostModel);
  const auto without_plan = tune::resolve({{}, nullptr, builtin}, simulated_rules(kWeight));
  EXPECT_EQ(without_plan->at(1).source, ChoiceSource::kBuiltinTable);
}

TEST(Lookup, MissingBucketsTakeTheNearestSafeChoice) {
  // 32 tokens lie as near to 16 as to 64: the larger one's choice goes first, if it is legal for 17 to 32 tokens.
  const Choice small = fused(2, 5), large = fused(8, 4, true), larger = fused(8, 2, true);
  const Plan plan = plan_with({cell(16, small), cell(64, large), cell(1024, larger)});
  const auto resolved = tune::resolve({{}, &plan, {}}, simulated_rules(kWeight));
  ASSERT_TRUE(resolved) << resolved.error().message;
  EXPECT_EQ(resolved->at(16).choice, small);
  EXPECT_EQ(resolved->at(32).choice, large);
  EXPECT_EQ(resolved->at(32).cell_tokens, 64U);
  EXPECT_EQ(resolved->at(64).choice, large);
  EXPECT_EQ(resolved->at(128).choice, large);    // one bucket from 64, three from 1024
  EXPECT_EQ(resolved->at(256).choice, larger);   // as near to both
  EXPECT_EQ(resolved->at(4096).choice, larger);  // two beyond the last
  EXPECT_EQ(resolved->at(8192).source, ChoiceSource::kCostModel);
  EXPECT_EQ(resolved->at(4).choice, small);
  EXPECT_EQ(resolved->at(2).source, ChoiceSource::kCostModel);
  // Not safe: what is legal for 16 tokens is not for 64, however near.
  const Plan few = plan_with({cell(16, small)});
  const auto next = tune::resolve({{}, &few, {}}, simulated_rules(kWeight));
  EXPECT_EQ(next->at(32).choice, small);
  EXPECT_EQ(next->at(64).source, ChoiceSource::kCostModel);
}

TEST(Lookup, NearestCellIsTheOneThatLookupTakes) {
  const Plan plan = plan_with({cell(16, fused(2, 5)), cell(64, fused(8, 4, true))});
  const PlanWeight& entry = plan.weights.front();
  EXPECT_EQ(nearest_cell(entry, 9)->tokens, 16U);
  EXPECT_EQ(nearest_cell(entry, 20)->tokens, 64U);
  EXPECT_EQ(nearest_cell(entry, 256)->tokens, 64U);
  EXPECT_EQ(nearest_cell(entry, 257), nullptr);
}

TEST(Lookup, DependentLaunchHasListsOfItsOwn) {
  Plan plan = plan_with({cell(8, fused(2, 5))});
  plan.weights[0].cells[0].dependent = {{fused(1, 6), 1, 0}};
  auto rules = simulated_rules(kWeight);
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(8).choice, fused(2, 5));
  rules.dependent_launch = true;
  Choice dependent = fused(1, 6);
  dependent.config.dependent_launch = true;
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(8).choice, dependent);
  plan.weights[0].cells[0].dependent.clear();
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(8).choice.config.stages, 5U);
  EXPECT_TRUE(tune::resolve({{}, &plan, {}}, rules)->at(8).choice.config.dependent_launch);
}

TEST(Lookup, TheFirstOfAListThatIsAvailableCounts) {
  Plan plan = plan_with({cell(4096, dense(Pipeline::kDecoded, 3))});
  plan.weights[0].cells[0].isolated.push_back({fused(8, 4, true), 2, 0});
  auto rules = simulated_rules(kWeight);
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(4096).choice, dense(Pipeline::kDecoded, 3));
  rules.scratch = false;
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(4096).choice, fused(8, 4, true));
  EXPECT_EQ(tune::resolve({{}, &plan, {}}, rules)->at(4096).source, ChoiceSource::kPlan);
}

TEST(Lookup, IllegalEntriesOfTheCallersPlanAreErrors) {
  const auto rules = simulated_rules(kWeight);
  const auto refused = [&](const PlanCell& illegal, const std::string& part) {
    const Plan plan = plan_with({illegal});
    expect_refused(tune::resolve({{}, &plan, {}}, rules), part);
  };
  refused(cell(8, fused(3, 4)), "plan: 4096 x 4096, tiled, 8 tokens, isolated[0]: matmul: strips=3 must be");
  refused(cell(64, fused(2, 4)), "tokens must be at most 32 without warpgroup");
  refused(cell(8, fused(2, 99)), "stages need shared memory");
  refused(cell(8, dense(Pipeline::kRaw, 1)), "pipeline raw is not for tiled weights");
  PlanCell second = cell(8, fused(2, 4));
  second.dependent = {{fused(2, 4), 1, 0}, {fused(5, 4), 1, 0}};
  refused(second, "dependent[1]");
  // The table's own are passed over; and an illegal entry for another weight does no harm.
  const std::vector<Plan> builtin = {plan_with({cell(8, fused(3, 4))})};
  EXPECT_EQ(tune::resolve({{}, nullptr, builtin}, rules)->at(8).source, ChoiceSource::kCostModel);
  const Plan other = plan_with({cell(8, fused(3, 4))}, {64, 64, BlobLayout::kTiled, ExceptionClass::kUsual});
  EXPECT_EQ(tune::resolve({{}, &other, {}}, rules)->at(8).source, ChoiceSource::kCostModel);
}

TEST(Lookup, IllegalOverridesAreErrors) {
  auto rules = simulated_rules(kWeight);
  const auto refused = [&](const TokenChoice& choice, const std::string& part) {
    const std::vector<TokenChoice> overrides = {choice};
    expect_refused(tune::resolve({overrides, nullptr, {}}, rules), part);
  };
  refused({8, fused(3, 4)}, "override for 8 tokens: matmul: strips=3");
  refused({0, fused(2, 4)}, "must be 1 to 65536");
  refused({65537, fused(2, 4)}, "must be 1 to 65536");
  rules.scratch = false;
  refused({8192, dense(Pipeline::kDecoded, 0)}, "needs a scratch");
  rules.cublaslt = 0;
  refused({8192, dense(Pipeline::kDecoded, 0)}, "needs cuBLASLt");
}

TEST(Lookup, ForeignPlansAreNotedAndNotUsed) {
  Plan plan = plan_with({cell(8, fused(1, 6))});
  plan.origin.gpu = "NVIDIA H200";
  const auto resolved = tune::resolve({{}, &plan, {}}, simulated_rules(kWeight));
  ASSERT_TRUE(resolved);
  EXPECT_EQ(resolved->at(8).source, ChoiceSource::kCostModel);
  EXPECT_TRUE(has_note(*resolved, "plan not used: plan: it was made for NVIDIA H200"));
  // Not even illegal entries of a foreign plan are looked at.
  plan.weights[0].cells[0].isolated[0].choice = fused(3, 4);
  EXPECT_TRUE(tune::resolve({{}, &plan, {}}, simulated_rules(kWeight)));
}

TEST(Lookup, AnotherCuBlasLtHasOtherAlgorithms) {
  Plan plan = plan_with({cell(4096, dense(Pipeline::kDecoded, 3))});
  plan.origin.cublaslt = 120000;
  const auto resolved = tune::resolve({{}, &plan, {}}, simulated_rules(kWeight));
  ASSERT_TRUE(resolved);
  EXPECT_EQ(resolved->at(4096).choice.pipeline, Pipeline::kDecoded);
  EXPECT_TRUE(resolved->at(4096).choice.algorithm.first_proposal());
  EXPECT_TRUE(has_note(*resolved, "120000"));
}

TEST(Lookup, WhoMultipliesByOtherMeansIsToldWhatThePlanNames) {
  const Choice named = dense(Pipeline::kDecoded, 1);
  const Plan plan = plan_with({cell(1, named)});
  auto rules = simulated_rules(kWeight);
  rules.cublaslt = tune::kAnyCublaslt;
  const auto resolved = tune::resolve({{}, &plan, {}}, rules);
  ASSERT_TRUE(resolved) << resolved.error().message;
  EXPECT_EQ(resolved->at(1).choice, named);
  EXPECT_TRUE(resolved->notes.empty());
}

TEST(Lookup, AnotherClassOfExceptionsIsBetterThanNone) {
  const Plan plan = plan_with({cell(8, fused(1, 6))}, {4096, 4096, BlobLayout::kTiled, ExceptionClass::kMany});
  const auto resolved = tune::resolve({{}, &plan, {}}, simulated_rules(kWeight));
  ASSERT_TRUE(resolved);
  EXPECT_EQ(resolved->at(8).choice, fused(1, 6));
  EXPECT_TRUE(has_note(*resolved, "many exceptions"));
  const auto raw =
      tune::resolve({{}, &plan, {}}, simulated_rules({4096, 4096, BlobLayout::kRaw, ExceptionClass::kUsual}));
  EXPECT_EQ(raw->at(8).source, ChoiceSource::kCostModel);
  EXPECT_TRUE(has_note(*raw, "has no entry"));
}

TEST(Lookup, FallsBackToAnyLegalConfiguration) {
  auto rules = simulated_rules(kWeight);
  rules.choose_config = [](std::uint32_t) -> Result<MatmulConfig> { return MatmulConfig{.strips = 7}; };
  const auto resolved = tune::resolve({}, rules);
  ASSERT_TRUE(resolved) << resolved.error().message;
  for (std::uint32_t tokens = 1; tokens < tune::kDecodedFromTokens / 2; tokens *= 2) {
    EXPECT_EQ(resolved->at(tokens).source, ChoiceSource::kFallback);
    EXPECT_TRUE(simulated_can_implement(tokens, resolved->at(tokens).choice.config));
  }
  rules.can_implement = [](std::uint32_t, const MatmulConfig&) -> Result<void> {
    return fail(ErrorCode::kInvalidArgument, "never");
  };
  expect_refused(tune::resolve({}, rules), "no configuration for 1 tokens: never");
}

// ---- tables ---------------------------------------------------------------------------------------------------------

TEST(Tables, BuiltInPlansAreSound) {
  for (const Plan& plan : tune::builtin_plans()) {
    EXPECT_FALSE(plan.origin.gpu.empty());
    EXPECT_FALSE(plan.weights.empty());
    EXPECT_EQ(plan.origin.kernels.size(), 16U);
    for (const PlanWeight& entry : plan.weights) {
      EXPECT_TRUE(std::ranges::is_sorted(entry.cells, {}, &PlanCell::tokens));
      for (const PlanCell& one : entry.cells) EXPECT_FALSE(one.isolated.empty() || one.dependent.empty());
    }
  }
}

TEST(Tables, LinesOfAPlanGiveThePlanBack) {
  // What the compiler would do with the lines, by hand.
  Plan plan = plan_with({cell(8, fused(1, 6)), cell(4096, dense(Pipeline::kDecoded, 3))});
  plan.weights[0].cells[0].dependent = {{fused(2, 4), 1, 0}};
  const std::string text = plan_table_text(plan);
  for (const char* line : {"table.plan(\"Simulated GPU\", 132, 130100, ",
                           "table.weight(4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual);",
                           "table.cell(8, table.fused({.strips = 1, .stages = 6}),\n  table.fused({}));",
                           "table.cell(4096, table.decoded({{0x3, 0x7, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0}}),"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << " in\n" << text;
  }
  tune::TableBuilder table;
  table.plan("Simulated GPU", 132, 130100, UNWEIGHT_VERSION_STRING, plan.origin.kernels);
  table.weight(4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual);
  table.cell(8, table.fused({.strips = 1, .stages = 6}), table.fused({}));
  table.cell(4096, table.decoded({{0x3, 0x7, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0}}),
             table.decoded({{0x3, 0x7, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0}}));
  const auto built = std::move(table).finish();
  ASSERT_EQ(built.size(), 1U);
  const auto resolved = tune::resolve({{}, nullptr, built}, simulated_rules(kWeight));
  EXPECT_EQ(resolved->at(8).choice, fused(1, 6));
  EXPECT_EQ(resolved->at(4096).choice, dense(Pipeline::kDecoded, 3));
}

/// Where time was too short for a good choice the table does not repeat the bad one.
TEST(Tables, LeaveOutWhatALargerBucketBeats) {
  Plan plan = plan_with({cell(2, fused(1, 6)), cell(4, fused(2, 4)), cell(8, fused(4, 4))});
  auto& cells = plan.weights[0].cells;
  MatmulConfig dependent = fused(1, 3).config;
  dependent.dependent_launch = true;
  const double us[] = {12, 10, 11}, dependent_us[] = {11, 14, 9};
  for (std::size_t i = 0; i < cells.size(); ++i) {
    cells[i].isolated.front().us = us[i];
    cells[i].dependent = {{{Pipeline::kFused, dependent, {}}, dependent_us[i], 0}};
  }
  const std::string text = plan_table_text(plan);
  EXPECT_EQ(text.find("table.cell(2,"), std::string::npos) << text;
  EXPECT_NE(text.find("table.cell(4, table.fused({}),\n  table.fused({}));"), std::string::npos) << text;
  EXPECT_NE(text.find("table.cell(8, table.fused({.strips = 4}),\n"
                      "  table.fused({.strips = 1, .stages = 3, .dependent_launch = true}));"),
            std::string::npos)
      << text;
}

TEST(Tables, TextFromFilesCannotBecomeCode) {
  Plan plan = plan_with({cell(8, fused(1, 6))});
  plan.origin.gpu = "x\"); evil(\"";
  plan.origin.command = "a\nevil();\\";
  plan.origin.date = "\x01";
  const std::string text = plan_table_text(plan);
  EXPECT_EQ(text.find("\nevil"), std::string::npos);
  EXPECT_EQ(text.find("\"); evil"), std::string::npos);
  EXPECT_EQ(text.find('\\'), std::string::npos);
}

}  // namespace
}  // namespace unweight::test
