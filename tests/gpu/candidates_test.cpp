// SPDX-License-Identifier: Apache-2.0
//
// The real kernels' configurations, as the tuner and plans see them. Needs no device.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <gtest/gtest.h>
#include <string>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>
#include <tune/tables.hpp>
#include <unweight/pipelines.hpp>

namespace unweight::test {
namespace {

constexpr std::uint32_t kMultiprocessors = 132;
constexpr MatrixShape kShapes[] = {{1, 1, 64},       {1, 16, 16},      {1, 1024, 4096},   {1, 4096, 4096},
                                   {1, 28672, 4096}, {1, 4096, 14336}, {1, 128256, 4096}, {8, 768, 2048}};

tune::CanImplement rules_for(const MatrixShape& shape, BlobLayout layout) {
  return [=](std::uint32_t tokens, const MatmulConfig& config) {
    return can_implement({shape, layout, kMultiprocessors, tokens}, config);
  };
}

TEST(RealCandidates, EveryBucketHasSomeAndEveryExclusionAReason) {
  for (const MatrixShape& shape : kShapes) {
    for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
      for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
        const auto all = tune::config_candidates(bucket, false, rules_for(shape, layout));
        EXPECT_FALSE(all.legal.empty()) << shape.rows << " x " << shape.cols << ", bucket " << bucket;
        EXPECT_LT(all.legal.size(), 200U);
        for (const tune::RefusedConfig& refused : all.refused) {
          EXPECT_TRUE(refused.reason.starts_with("matmul: ")) << refused.reason;
        }
      }
    }
  }
}

TEST(RealCandidates, LegalForTheEndsOfABucketIsLegalInside) {
  const auto can = rules_for({1, 4096, 4096}, BlobLayout::kTiled);
  for (std::uint32_t bucket = 0; bucket_tokens(bucket) <= 1024; ++bucket) {
    const auto all = tune::config_candidates(bucket, false, can);
    for (const MatmulConfig& config : all.legal) {
      for (std::uint32_t tokens = bucket_begin(bucket); tokens <= bucket_tokens(bucket); ++tokens) {
        EXPECT_TRUE(can(tokens, config)) << tokens << ": " << tune::describe_config(config);
      }
    }
  }
}

TEST(RealCandidates, EveryTiledFamilyHasARawTwinToCompareWith) {
  // The tuner checks a kernel against itself on raw weights: a family without any would be left out.
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
    const auto raw = rules_for({1, 4096, 4096}, BlobLayout::kRaw);
    for (MatmulConfig config :
         tune::config_candidates(bucket, false, rules_for({1, 4096, 4096}, BlobLayout::kTiled)).legal) {
      const std::string name = tune::describe_config(config);
      bool found = false;
      for (const std::uint32_t stages : tune::members::kStages) {
        config.stages = stages;
        found = found || raw(bucket_tokens(bucket), config).has_value();
      }
      EXPECT_TRUE(found) << bucket_tokens(bucket) << ": " << name;
    }
  }
}

TEST(RealCandidates, EmptyShapesAndStrangeDevicesDoNoHarm) {
  for (const std::uint32_t multiprocessors : {0U, 1U, 2U, 1000U}) {
    for (const MatrixShape& shape : {MatrixShape{1, 0, 64}, {1, 64, 0}, {0, 64, 64}}) {
      (void)can_implement({shape, BlobLayout::kTiled, multiprocessors, 8}, {.split = true});
      (void)can_implement({shape, BlobLayout::kRaw, multiprocessors, 0}, {});
    }
  }
}

TEST(KernelSet, IsAShortTextThatStaysTheSame) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string set = kernel_set();
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 1.0);
  EXPECT_EQ(set.size(), 16U);
  EXPECT_EQ(set.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(kernel_set(), set);
}

TEST(KernelSet, BuiltInTablesAreForTheseKernels) {
  for (const Plan& plan : tune::builtin_plans()) {
    EXPECT_EQ(plan.origin.kernels, kernel_set()) << plan.origin.gpu << ": measure it again, then `unweight plan table`";
    for (const PlanWeight& entry : plan.weights) {
      const MatrixShape shape{1, entry.weight.rows, entry.weight.cols};
      for (const PlanCell& cell : entry.cells) {
        for (const auto* list : {&cell.isolated, &cell.dependent}) {
          for (const Measurement& measured : *list) {
            if (measured.choice.pipeline != Pipeline::kFused) continue;
            const auto legal = tune::legal_in_bucket(token_bucket(cell.tokens), measured.choice.config,
                                                     rules_for(shape, entry.weight.layout));
            EXPECT_TRUE(legal) << plan.origin.gpu << ", " << describe(entry.weight) << ", " << cell.tokens;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace unweight::test
