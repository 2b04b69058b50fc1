// SPDX-License-Identifier: Apache-2.0
//
// Choices without anything that runs, by the C interface: for the real kernels, and without a device.
#include <algorithm>
#include <capi/plan_object.hpp>
#include <gtest/gtest.h>
#include <string>
#include <unweight/pipelines.hpp>
#include <unweight/plan.hpp>
#include <unweight/unweight_cuda.h>
#include <unweight/version.h>
#include <utility>
#include <vector>

namespace unweight::test {
namespace {

constexpr char kGpu[] = "Some GPU";
constexpr std::uint32_t kMultiprocessors = 132;
constexpr std::uint64_t kCublaslt = 130000;
const CublasAlgorithm kAlgorithm{{1, 2, 3, 4, 5, 6, 7, 8}};

/// A plan of one weight for the kernels of this library.
unweight_plan plan_of(const WeightClass& weight, std::vector<PlanCell> cells) {
  Plan plan;
  plan.origin.gpu = kGpu;
  plan.origin.multiprocessors = kMultiprocessors;
  plan.origin.cublaslt = kCublaslt;
  plan.origin.library = UNWEIGHT_VERSION_STRING;
  plan.origin.kernels = kernel_set();
  plan.weights.push_back({weight, 0, std::move(cells)});
  return {std::move(plan)};
}

/// What a test asks, and what it is told.
struct Query {
  unweight_weight_class weight{sizeof(unweight_weight_class), 4096, 4096, UNWEIGHT_LAYOUT_TILED, 0, 0};
  unweight_device_facts device{sizeof(unweight_device_facts), kGpu, kMultiprocessors, 0, UNWEIGHT_ANY_CUBLASLT};
  unweight_linear_options options{};
  const char* tensor_name = nullptr;
  unweight_choice choice{};
  unweight_matmul_config config{};
  char notes[500] = "not written";

  Query() {
    options.struct_size = sizeof options;
    config.struct_size = sizeof config;
    choice.struct_size = sizeof choice;
    choice.config = &config;
    choice.notes = notes;
    choice.notes_bytes = sizeof notes;
  }

  unweight_status ask(std::uint32_t tokens) {
    return unweight_choose(&weight, &device, &options, tensor_name, tokens, &choice);
  }
  void expect(std::uint32_t tokens, std::uint32_t pipeline, std::uint32_t source, std::uint32_t cell_tokens) {
    ASSERT_EQ(ask(tokens), UNWEIGHT_OK) << unweight_last_error_message();
    EXPECT_EQ(choice.pipeline, pipeline) << tokens;
    EXPECT_EQ(choice.source, source) << tokens;
    EXPECT_EQ(choice.cell_tokens, cell_tokens) << tokens;
    EXPECT_LE(choice.first_tokens, tokens);
    EXPECT_GE(choice.last_tokens, tokens);
    const MatrixShape shape{1, weight.rows, weight.cols};
    const MatmulConfig written{config.strips, config.stages, config.split != 0, config.dependent_launch != 0,
                               config.warpgroup != 0};
    for (const std::uint32_t any : {choice.first_tokens, tokens, choice.last_tokens}) {
      const auto legal = can_implement({shape, static_cast<BlobLayout>(weight.layout), kMultiprocessors, any}, written);
      EXPECT_TRUE(legal) << any << ": " << legal.error().message;
    }
  }
  void expect_refused(std::uint32_t tokens, const std::string& part) {
    EXPECT_EQ(ask(tokens), UNWEIGHT_INVALID_ARGUMENT) << part;
    const std::string message = unweight_last_error_message();
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nwithout: " << part;
  }
};

TEST(Choose, WithoutAPlanTheRulesDecide) {
  Query query;
  for (const std::uint32_t layout : {UNWEIGHT_LAYOUT_TILED, UNWEIGHT_LAYOUT_RAW}) {
    query.weight.layout = layout;
    const bool raw = layout == UNWEIGHT_LAYOUT_RAW;
    for (std::uint32_t tokens = 1; tokens <= kMaxMatmulTokens; tokens += std::max(1U, tokens / 3)) {
      const std::uint32_t few = raw ? UNWEIGHT_PIPELINE_RAW : UNWEIGHT_PIPELINE_FUSED;
      const std::uint32_t many = raw ? UNWEIGHT_PIPELINE_RAW : UNWEIGHT_PIPELINE_DECODED;
      query.expect(tokens, tokens > 1024 ? many : few, UNWEIGHT_CHOICE_COST_MODEL, 0);
      EXPECT_EQ(query.choice.first_tokens, bucket_begin(token_bucket(tokens)));
      EXPECT_EQ(query.choice.last_tokens, bucket_tokens(token_bucket(tokens)));
      EXPECT_STREQ(query.notes, "");
    }
    // Nothing but the fused kernel.
    query.options.no_cublas = 1;
    query.expect(4096, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
    query.options.no_cublas = 0;
    query.device.cublaslt = 0;
    query.expect(4096, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
    query.device.cublaslt = UNWEIGHT_ANY_CUBLASLT;
  }
  query.weight.layout = UNWEIGHT_LAYOUT_TILED;
  query.options.no_scratch = 1;
  query.expect(4096, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
  query.options.no_scratch = 0;
  query.weight.rows = 4095;  // cuBLASLt wants multiples of 8
  query.expect(4096, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
}

// For 65 to 128 tokens both kernels can run; wide items win where they fill the chip.
TEST(Choose, RulesWeighUpTheTwoKernels) {
  const auto strips = [](std::uint64_t rows, std::uint64_t cols, std::uint32_t tokens) {
    const MatmulProblem problem{{1, rows, cols}, BlobLayout::kTiled, kMultiprocessors, tokens};
    const auto config = choose_matmul_config(problem);
    EXPECT_TRUE(config && can_implement(problem, *config)) << rows << " x " << cols << ", " << tokens;
    return config ? config->strips : 0;
  };
  for (const std::uint32_t tokens : {65U, 100U, 128U}) {
    EXPECT_EQ(strips(28672, 4096, tokens), 12U);
    EXPECT_EQ(strips(4096, 4096, tokens), 12U);
    EXPECT_EQ(strips(8192, 28672, tokens), 8U);  // 43 wide items in clusters of two leave a third of the chip idle
  }
  EXPECT_EQ(strips(28672, 4096, 129), 8U);
}

TEST(Choose, OverrideThenPlanThenTableThenRules) {
  Query query;
  query.device.gpu = "NVIDIA H200";
  unweight_plan plan = plan_of({4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual},
                               {{4, 0, {{{Pipeline::kFused, {.strips = 1, .stages = 3}, {}}, 1, 0}}, {}}});
  plan.plan.origin.gpu = query.device.gpu;
  query.options.plan = &plan;
  query.expect(1, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_PLAN, 4);
  EXPECT_EQ(query.config.strips, 1U);
  EXPECT_EQ(query.config.stages, 3U);
  EXPECT_EQ(query.config.dependent_launch, 0U);
  query.expect(64, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_BUILTIN_TABLE, 64);
  query.expect(4096, UNWEIGHT_PIPELINE_DECODED, UNWEIGHT_CHOICE_BUILTIN_TABLE, 4096);
  query.options.no_builtin_tables = 1;
  query.expect(64, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
  query.options.dependent_launch = 1;
  unweight_matmul_config override_config{sizeof(unweight_matmul_config), 4, 2, 0, 0, 0, 0};
  const std::uint32_t override_tokens = 1;
  query.options.overrides = &override_config;
  query.options.override_tokens = &override_tokens;
  query.options.override_count = 1;
  query.expect(1, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_OVERRIDE, 1);
  EXPECT_EQ(query.config.strips, 4U);
  query.expect(2, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_PLAN, 4);
  EXPECT_EQ(query.config.dependent_launch, 1U);
  override_config.strips = 3;
  query.expect_refused(1, "override for 1 tokens");
}

TEST(Choose, TellsTheAlgorithmThatThePlanNames) {
  Query query;
  const unweight_plan plan = plan_of({4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual},
                                     {{16, 0, {{{Pipeline::kDecoded, {}, kAlgorithm}, 1, 0}}, {}}});
  query.options.plan = &plan;
  const auto words = [&] {
    CublasAlgorithm found;
    std::ranges::copy(query.choice.algorithm, found.words.begin());
    return found;
  };
  for (const std::uint64_t version : {UNWEIGHT_ANY_CUBLASLT, kCublaslt}) {
    query.device.cublaslt = version;
    query.expect(16, UNWEIGHT_PIPELINE_DECODED, UNWEIGHT_CHOICE_PLAN, 16);
    EXPECT_EQ(words(), kAlgorithm);
    EXPECT_STREQ(query.notes, "");
  }
  query.device.cublaslt = kCublaslt + 1;
  query.expect(16, UNWEIGHT_PIPELINE_DECODED, UNWEIGHT_CHOICE_PLAN, 16);
  EXPECT_EQ(words(), CublasAlgorithm{});
  EXPECT_NE(std::string(query.notes).find("130001"), std::string::npos) << query.notes;
  query.expect(256, UNWEIGHT_PIPELINE_FUSED, UNWEIGHT_CHOICE_COST_MODEL, 0);
  EXPECT_EQ(words(), CublasAlgorithm{});
}

TEST(Choose, KeepsRawByAPlanThatSuitsAlone) {
  Query query;
  unweight_plan plan = plan_of({4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual}, {});
  plan.plan.matrices.push_back({"qkv_proj", 4096, 4096, ExceptionClass::kUsual, 1, 2, {"l.0.qkv_proj.weight"}, 1});
  query.options.plan = &plan;
  const auto keeps_raw = [&](const char* name) {
    query.tensor_name = name;
    query.choice.keeps_raw = 7;
    EXPECT_EQ(query.ask(1), UNWEIGHT_OK) << unweight_last_error_message();
    return query.choice.keeps_raw;
  };
  EXPECT_EQ(keeps_raw("l.0.q_proj.weight"), 1U);
  EXPECT_EQ(keeps_raw("l.1.q_proj.weight"), 0U);
  EXPECT_EQ(keeps_raw(nullptr), 0U);
  query.device.multiprocessors = 114;
  EXPECT_EQ(keeps_raw("l.0.q_proj.weight"), 0U);
  EXPECT_NE(std::string(query.notes).find("plan not used: plan: it was made for Some GPU with 132"), std::string::npos)
      << query.notes;
}

TEST(Choose, WritesWhatTheCallerHasRoomFor) {
  Query query;
  unweight_plan plan = plan_of({64, 64, BlobLayout::kTiled, ExceptionClass::kUsual}, {});
  query.options.plan = &plan;
  query.choice.notes_bytes = 5;
  ASSERT_EQ(query.ask(1), UNWEIGHT_OK);
  EXPECT_STREQ(query.notes, "plan");
  EXPECT_STREQ(query.notes + 5, "ritten");
  query.choice.config = nullptr;
  query.choice.notes = nullptr;
  query.choice.notes_bytes = 0;
  query.config.strips = 99;
  ASSERT_EQ(query.ask(1), UNWEIGHT_OK);
  EXPECT_EQ(query.config.strips, 99U);
  EXPECT_EQ(query.choice.struct_size, sizeof query.choice);
  EXPECT_EQ(unweight_choose(&query.weight, &query.device, nullptr, nullptr, 1, &query.choice), UNWEIGHT_OK);
}

TEST(Choose, RefusesUnsoundArguments) {
  const auto refused = [](auto change, const std::string& part) {
    Query query;
    change(query);
    query.expect_refused(1, part);
  };
  refused([](Query& q) { q.weight.struct_size = 8; }, "weight->struct_size = 8");
  refused([](Query& q) { q.weight.rows = 0; }, "0 x 4096");
  refused([](Query& q) { q.weight.cols = 0; }, "4096 x 0");
  refused([](Query& q) { q.weight.cols = ~0ULL; }, "4096 x 18446744073709551615 has 2^31");
  refused([](Query& q) { q.weight.rows = std::uint64_t{1} << 31; }, "2147483648 x 4096 has 2^31");
  refused([](Query& q) { q.weight.layout = 2; }, "weight->layout = 2");
  refused([](Query& q) { q.weight.exceptions = 3; }, "weight->exceptions = 3");
  refused([](Query& q) { q.weight.reserved = 1; }, "weight->reserved = 1");
  refused([](Query& q) { q.device.struct_size = 8; }, "device->struct_size = 8");
  refused([](Query& q) { q.device.multiprocessors = 0; }, "device->multiprocessors = 0 must be 1 or more");
  refused([](Query& q) { q.device.multiprocessors = 1; }, "no configuration for 256 tokens");
  refused([](Query& q) { q.device.gpu = nullptr; }, "device->multiprocessors = 132 must be 0");
  refused([](Query& q) { q.options.no_cublas = 2; }, "options->no_cublas = 2");
  refused([](Query& q) { q.choice.struct_size = 64; }, "choice->struct_size = 64");
  refused([](Query& q) { q.config.struct_size = 8; }, "choice->config->struct_size = 8");
  refused([](Query& q) { q.choice.notes_bytes = 0; }, "= 0 must be 1 or more");
  Query query;
  query.expect_refused(0, "tokens = 0");
  query.expect_refused(kMaxMatmulTokens + 1, "tokens = 65537");
  EXPECT_EQ(unweight_choose(nullptr, &query.device, nullptr, nullptr, 1, &query.choice), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_choose(&query.weight, &query.device, nullptr, nullptr, 1, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_weight_class found{sizeof found, 0, 0, 0, 0, 0};
  EXPECT_EQ(unweight_device_blob_class(nullptr, &found), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_device_blob_class(nullptr, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  const unweight_plan illegal = plan_of({4096, 4096, BlobLayout::kTiled, ExceptionClass::kUsual},
                                        {{8, 0, {{{Pipeline::kFused, {.strips = 16}, {}}, 1, 0}}, {}}});
  query.options.plan = &illegal;
  query.expect_refused(1, "4096 x 4096, tiled, 8 tokens, isolated[0]: matmul: strips=16 needs warpgroup");
}

}  // namespace
}  // namespace unweight::test
