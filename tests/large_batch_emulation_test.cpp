// SPDX-License-Identifier: Apache-2.0
//
// The large-batch kernel on the CPU (tests/emulation): the real kernel source, the launcher's own parameters.
#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
#include "emulation/matmul.hpp"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <algorithm>
#include <cuda/kernels/sm90_large_batch.cuh>
#include <cuda/launch/large_batch_params.hpp>
#include <gtest/gtest.h>
#include <vector>

namespace unweight::test {
namespace {

using Case = MatmulTestCase;

template <class Config>
void run_kernel(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const Case& c) {
  using Traits = sm90::LargeBatchTraits<Config>;
  const sm90::LargeBatchParams params = launch::large_batch_params(weight, arguments, c.config, c.multiprocessors);
  const CUtensorMap x_map = host_tensor_map(launch::activations(weight, arguments), params.x_share, 1);
  const CUtensorMap w_map = host_weight_map(weight, arguments.matrix, Config::kStrips, 1);
  emulation::launch({params.deal.blocks * Traits::kSharers, Traits::kThreads, params.deal.parts * Traits::kSharers},
                    sm90::LargeBatchMap<Config>::kBytes, c.seed,
                    [&] { sm90::large_batch_kernel<Config>(params, x_map, w_map); });
}

template <bool Raw>
void run_kernels(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const Case& c) {
  if (c.tokens <= 128) return run_kernel<sm90::LargeBatchConfig<128, Raw>>(weight, arguments, c);
  return run_kernel<sm90::LargeBatchConfig<256, Raw>>(weight, arguments, c);
}

std::vector<std::uint16_t> multiply(const HostBlob& blob, const HostActivations& x, const Case& c) {
  return multiply_on_host(blob, x, c, [](const auto& weight, const MatmulArguments& arguments, const Case& of) {
    weight.layout == BlobLayout::kRaw ? run_kernels<true>(weight, arguments, of)
                                      : run_kernels<false>(weight, arguments, of);
  });
}

/// Blocks of tokens and of rows that are not full, a pair's block without rows, an odd number of tiles along K, split
/// and whole items: near float64, and the same bits as raw.
TEST(SlowLargeBatchEmulation, EveryKindOfConfiguration) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 200, 312}, MatrixShape{1, 560, 72}, MatrixShape{1, 1, 1}}) {
    const auto values = make_tensor(shape, Filling::kEscapes1p5, 9);
    const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
    for (const std::uint32_t tokens : {65U, 130U, 300U}) {
      for (const bool split : {false, true}) {
        const bool aligned = ++seed % 3 != 0;
        const std::uint64_t stride = (shape.cols + 7) / 8 * 8;
        const HostActivations x(tokens, shape.cols, stride, aligned ? 0 : 3, tokens);
        Case c{.tokens = tokens,
               .config = {.strips = 8, .split = split, .warpgroup = true},
               .y_gap = aligned ? 8 - shape.rows % 8 : 3,
               .multiprocessors = 6,
               .seed = seed};
        const auto y = multiply(raw, x, c);
        EXPECT_TRUE(near_float64(y, x.data(), x.stride, values, shape, tokens)) << describe_case(shape, c);
        c.seed += 100;
        EXPECT_EQ(multiply(tiled, x, c), y) << describe_case(shape, c);
        if (HasFailure()) return;
      }
    }
  }
}

/// Few items: clusters of two, three and four pairs, which exchange sums; more: ranges, whose sums go by way of memory,
/// of items with blocks of two, of three and of one. A row of two pairs of blocks for each block of tokens.
TEST(SlowLargeBatchEmulation, SplitItems) {
  const MatrixShape shape{1, 512, 64 * 7};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 5);
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  std::vector<std::uint32_t> parts;
  for (const std::uint32_t tokens : {100U, 300U}) {
    const HostActivations x(tokens, shape.cols, shape.cols, 0, tokens);
    for (const std::uint32_t multiprocessors : {6U, 10U, 18U, 20U}) {
      Case c{.tokens = tokens,
             .config = {.strips = 8, .split = true, .warpgroup = true},
             .multiprocessors = multiprocessors};
      const auto deal = launch::large_batch_deal(shape, c.config, multiprocessors, tokens);
      parts.push_back(deal.splits() ? deal.parts : 0);
      const auto y = multiply(raw, x, c);
      EXPECT_TRUE(near_float64(y, x.data(), x.stride, values, shape, tokens)) << describe_case(shape, c);
      c.seed = multiprocessors;
      EXPECT_EQ(multiply(tiled, x, c), y) << describe_case(shape, c);
      if (HasFailure()) return;
    }
  }
  for (const std::uint32_t kind : {1U, 2U, 3U, 4U}) EXPECT_NE(std::count(parts.begin(), parts.end(), kind), 0) << kind;
}

TEST(LargeBatchEmulation, EveryFillingEqualsRaw) {
  const MatrixShape shape{1, 130, 200};
  for (const Filling filling : kAllFillings) {
    const auto values = make_tensor(shape, filling, 6);
    const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
    const HostActivations x(70, shape.cols, shape.cols, 0, 2);
    const Case c{.tokens = 70, .config = {.strips = 8, .warpgroup = true}};
    EXPECT_EQ(multiply(tiled, x, c), multiply(raw, x, c)) << name_of(filling);
  }
}

/// Lists of every length up to exponent planes, crowded lanes; all 65,536 values.
TEST(LargeBatchEmulation, EveryListAndValue) {
  const ListsAndValues tensor;
  const MatrixShape& shape = tensor.shape;
  const auto& values = tensor.values;
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_EQ(tiled.placed.layout, BlobLayout::kTiled);
  const HostActivations x(66, shape.cols, shape.cols, 0, 2);
  const Case c{.tokens = 66, .config = {.strips = 8, .warpgroup = true}};
  EXPECT_EQ(multiply(tiled, x, c), multiply(raw, x, c));
}

TEST(LargeBatchEmulation, StridesOffsetsBiasAndBatch) {
  const MatrixShape shape{2, 136, 128}, one{1, 136, 128};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 8);
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  std::vector<std::uint16_t> bias(shape.rows);
  Random random(5);
  for (auto& value : bias) value = to_bf16(static_cast<float>(random.normal()));
  for (std::uint64_t matrix = 0; matrix < shape.batch; ++matrix) {
    const auto part = std::span(values).subspan(matrix * one.rows * one.cols, one.rows * one.cols);
    for (const std::uint64_t gap : {0U, 8U, 5U}) {
      for (const std::uint64_t offset : {0U, 1U}) {
        const HostActivations x(90, shape.cols, shape.cols + 8, 8 * offset, 7);
        const Case c{.tokens = 90,
                     .config = {.strips = 8, .warpgroup = true},
                     .y_gap = gap,
                     .matrix = matrix,
                     .bias = bias.data(),
                     .y_offset = offset};
        const auto y = multiply(tiled, x, c);
        EXPECT_TRUE(near_float64(y, x.data(), x.stride, part, one, c.tokens, c.bias)) << describe_case(shape, c);
        EXPECT_EQ(multiply(raw, x, c), y);
      }
    }
  }
}

/// More blocks of tokens than pass W together, and the rest of them.
TEST(LargeBatchEmulation, BandsOfTokens) {
  const MatrixShape shape{1, 90, 64};
  const std::uint32_t tokens = 9 * 256 + 3;
  const auto values = make_tensor(shape, Filling::kTrained, 9);
  const HostBlob tiled = HostBlob::encoded(values, shape);
  const HostActivations x(tokens, shape.cols, shape.cols, 0, tokens);
  const Case c{.tokens = tokens, .config = {.strips = 8, .warpgroup = true}};
  EXPECT_TRUE(near_float64(multiply(tiled, x, c), x.data(), x.stride, values, shape, tokens));
}

/// Row m of Y has the same bits for every number of tokens and blocks, and whatever the timing.
TEST(LargeBatchEmulation, BatchInvariantAndDeterministic) {
  const MatrixShape shape{1, 300, 264};
  const auto values = make_tensor(shape, Filling::kTrained, 4);
  const auto blob = HostBlob::encoded(values, shape);
  const HostActivations x(200, shape.cols, shape.cols, 0, 1);
  const auto expected = multiply(blob, x, {.tokens = 200, .config = {.strips = 8, .warpgroup = true}});
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const Case c{.tokens = static_cast<std::uint32_t>(65 + seed * 31 % 120),
                 .config = {.strips = 8, .warpgroup = true},
                 .multiprocessors = static_cast<std::uint32_t>(2 + seed % 4),
                 .seed = seed};
    const auto y = multiply(blob, x, c);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), expected.begin())) << describe_case(shape, c);
  }
}

}  // namespace
}  // namespace unweight::test
