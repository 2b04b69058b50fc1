// SPDX-License-Identifier: Apache-2.0
//
// Public functions on blobs when memory runs out: whichever allocation is the first that fails, and with all after it,
// they return an error and throw nothing. Not with sanitizers, which have an allocator of their own; nor with clang,
// which has no macro that tells whether they are on.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#include "support/tensors.hpp"
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <new>
#include <unweight/blob.hpp>
#include <unweight/distribution.hpp>

namespace {

constexpr int kUnlimited = -1;
thread_local int allocations_left = kUnlimited;  ///< of this thread

}  // namespace

// The rest of the program does not notice these.
void* operator new(std::size_t size_bytes) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  if (void* memory = std::malloc(size_bytes == 0 ? 1 : size_bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

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
            << call.name << " with " << allocations << " allocations and " << threads
            << " threads: " << error_name(code);
      }
      EXPECT_LT(allocations, kMostAllocations) << call.name;
    }
  }
}

}  // namespace
}  // namespace unweight
#endif
