// SPDX-License-Identifier: Apache-2.0
//
// Public functions on blobs when memory runs out: whichever allocation is the first that fails, and with all after it,
// they return an error and throw nothing. Not with sanitizers, which have an allocator of their own; nor with clang,
// which has no macro that tells whether they are on.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#include "support/simulated_bench.hpp"
#include "support/tensors.hpp"
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <new>
#include <unweight/blob.hpp>
#include <unweight/distribution.hpp>
#include <unweight/tune.hpp>

namespace {

constexpr int kUnlimited = -1;
thread_local int allocations_left = kUnlimited;  ///< of this thread

}  // namespace

// The rest of the program does not notice these. Not inlined: g++ 12 would see one of a pair without the other.
[[gnu::noinline]] void* operator new(std::size_t size_bytes) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* memory = std::malloc(size_bytes == 0 ? 1 : size_bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace unweight {
namespace {

/// One call, its outcome as a code.
struct Call {
  const char* name;
  std::function<ErrorCode()> run;
};

template <class T>
ErrorCode code_of(const Result<T>& result) {
  return result ? ErrorCode::kOk : result.error().code;
}

/// However many allocations succeed before all others fail, the outcome is that of a call with enough, or kOutOfMemory.
void expect_errors(const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    const ErrorCode outcome = call.run();
    constexpr int kMostAllocations = 10'000;
    int allocations = 0;
    for (; allocations < kMostAllocations; ++allocations) {
      ErrorCode code = ErrorCode::kInternal;
      allocations_left = allocations;
      try {
        code = call.run();
      } catch (...) {
      }
      const bool enough = allocations_left > 0;
      allocations_left = kUnlimited;
      if (code == outcome && enough) break;
      ASSERT_TRUE(code == ErrorCode::kOutOfMemory || code == outcome)
          << call.name << " with " << allocations << " allocations: " << error_name(code);
    }
    EXPECT_LT(allocations, kMostAllocations) << call.name;
  }
}

TEST(OutOfMemory, EveryFailingAllocationIsAnError) {
  const MatrixShape shape{1, 128, 256};
  const std::vector<std::uint16_t> values = test::make_tensor(shape, test::Filling::kEscapes1p5, 1);
  const std::vector<std::byte> blob = encode(values, shape).value();
  ASSERT_EQ(inspect(blob).value().layout, BlobLayout::kTiled);
  std::vector<std::byte> damaged = blob;
  damaged[20] ^= std::byte{1};
  const std::vector<std::byte> small = distribution::encode(values, shape).value();
  ASSERT_EQ(distribution::inspect(small).value().layout, distribution::Layout::kCoded);
  std::vector<std::byte> small_damaged = small;
  small_damaged[small.size() / 2] ^= std::byte{1};
  std::vector<std::byte> out(encode_bound(shape).value());
  std::vector<std::uint16_t> decoded(values.size());

  for (const unsigned threads : {1U, 2U}) {
    const DecodeOptions options{.threads = threads};
    const std::vector<Call> calls = {
        {"encode_bound, too large",
         [&] {
           return code_of(encode_bound({1U << 20, 1U << 20, 1U << 20}));
         }},
        {"encode", [&] { return code_of(encode(values, shape, {.threads = threads})); }},
        {"encode_into", [&] { return code_of(encode_into(values, shape, out, {.threads = threads})); }},
        {"encode_into, too small", [&] { return code_of(encode_into(values, shape, {}, {.threads = threads})); }},
        {"inspect", [&] { return code_of(inspect(blob)); }},
        {"inspect, damaged", [&] { return code_of(inspect(damaged)); }},
        {"decode", [&] { return code_of(decode(blob, decoded, options)); }},
        {"decode, damaged", [&] { return code_of(decode(damaged, decoded, options)); }},
        {"decode_rows", [&] { return code_of(decode_rows(blob, 3, 50, std::span(decoded).first(50 * 256), options)); }},
        {"decode_rows, out of range", [&] { return code_of(decode_rows(blob, 128, 1, decoded, options)); }},
        {"slice",
         [&] {
           return code_of(slice(blob, {0, 1, 16, 64, 64, 128}));
         }},
        {"slice, misaligned",
         [&] {
           return code_of(slice(blob, {0, 1, 1, 64, 64, 128}));
         }},
        {"verify_blob", [&] { return code_of(verify_blob(blob, options)); }},
        {"distribution encode", [&] { return code_of(distribution::encode(values, shape, {.threads = threads})); }},
        {"distribution encode_into",
         [&] { return code_of(distribution::encode_into(values, shape, out, {.threads = threads})); }},
        {"distribution inspect", [&] { return code_of(distribution::inspect(small)); }},
        {"distribution decode", [&] { return code_of(distribution::decode(small, decoded, options)); }},
        {"distribution decode, damaged",
         [&] { return code_of(distribution::decode(small_damaged, decoded, options)); }},
        {"distribution decode_rows",
         [&] { return code_of(distribution::decode_rows(small, 3, 50, std::span(decoded).first(50 * 256), options)); }},
        {"distribution verify_blob", [&] { return code_of(distribution::verify_blob(small, options)); }},
        {"distribution to_runtime", [&] { return code_of(distribution::to_runtime(small, options)); }},
        {"distribution from_runtime", [&] { return code_of(distribution::from_runtime(blob, options)); }},
    };
    expect_errors(calls);
  }
}

TEST(OutOfMemory, PlansToo) {
  Plan plan;
  plan.origin = test::SimulatedBench().origin();
  ModelMatrices model = test::simulated_model();
  model.matrices.resize(1);
  for (const BlobLayout layout : {BlobLayout::kTiled, BlobLayout::kRaw}) {
    const Choice dense{layout == BlobLayout::kRaw ? Pipeline::kRaw : Pipeline::kDecoded, {}, {}};
    plan.weights.push_back({{4096, 4096, layout, ExceptionClass::kUsual},
                            1,
                            {{8, 30, {{{}, 20, 0}, {dense, 21, 0}}, {{{}, 20, 0}, {dense, 21, 0}}}}});
  }
  MemoryOptions memory;
  memory.batch_sizes = {8};
  ASSERT_TRUE(plan_memory(plan, model, memory));
  const std::string text = plan_text(plan), damaged = text.substr(0, text.size() / 2);
  const DeviceIdentity other{"another", 1, "x"};
  const auto step = [](const Plan&) -> Result<double> { return 1.0; };
  RefineOptions refine;
  refine.rounds = refine.passes = 1;
  expect_errors({
      {"parse_plan", [&] { return code_of(parse_plan(text)); }},
      {"parse_plan, damaged", [&] { return code_of(parse_plan(damaged)); }},
      {"plan_suits, not", [&] { return code_of(plan_suits(plan, other)); }},
      {"plan_memory", [&] { return code_of(plan_memory(plan, model, memory)); }},  // again: the same
      {"memory_report", [&] { return code_of(memory_report(plan)); }},
      {"refine_plan", [&] { return code_of(refine_plan(plan, step, refine)); }},
      {"known_model_matrices", [&] { return code_of(known_model_matrices("tiny-llama-test", Merging::kMerged)); }},
  });
}

TEST(OutOfMemory, LookingUpAChoiceNeedsNone) {
  const Plan plan = test::simulated_plan();
  const auto rules = test::simulated_rules(plan.weights[0].weight);
  const tune::ChoiceTable table = tune::resolve({{}, &plan, {}}, rules).value();
  std::uint64_t sum = 0;
  allocations_left = 0;
  for (std::uint32_t tokens = 1; tokens <= kMaxMatmulTokens; ++tokens) sum += table.at(tokens).choice.config.stages;
  allocations_left = kUnlimited;
  EXPECT_GT(sum, 0U);
}

}  // namespace
}  // namespace unweight
#endif
