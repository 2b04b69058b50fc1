// SPDX-License-Identifier: Apache-2.0
//
// The small-batch kernel on the CPU (tests/emulation): the real kernel source, the launcher's own parameters.
#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
#include "emulation/matmul.hpp"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <algorithm>
#include <array>
#include <cuda/kernels/sm90_small_batch.cuh>
#include <cuda/launch/small_batch_params.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

using Case = MatmulTestCase;

template <class Config>
void run_kernel(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const Case& c) {
  using Traits = sm90::SmallBatchTraits<Config>;
  const sm90::SmallBatchParams params = launch::small_batch_params(weight, arguments, c.config, c.multiprocessors);
  const CUtensorMap x_map =
      host_tensor_map(launch::activations(weight, arguments), params.x_tile_rows, Traits::kColTiles);
  const CUtensorMap w_map = host_weight_map(weight, arguments.matrix, Config::kStrips, Traits::kColTiles);
  const std::uint32_t shared_bytes = sm90::SmallBatchMap<Config>(c.config.stages, params.deal.parts).size;
  emulation::launch({params.deal.blocks, Traits::kThreads, params.deal.parts}, shared_bytes, c.seed,
                    [&] { sm90::small_batch_kernel<Config>(params, x_map, w_map); });
}

template <std::uint32_t Strips, bool Raw>
void run_strips(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const Case& c) {
  const auto run = [&]<std::uint32_t TokenTiles, bool Warpgroup>() {
    run_kernel<sm90::SmallBatchConfig<Strips, TokenTiles, Raw, Warpgroup>>(weight, arguments, c);
  };
  if constexpr (Strips == 12) {
    return run.template operator()<16, true>();
  } else if constexpr (Strips % 4 == 0) {
    if (c.config.warpgroup) {
      return arguments.tokens <= 32 ? run.template operator()<4, true>() : run.template operator()<8, true>();
    }
  }
  if constexpr (Strips <= 4) {
    if (arguments.tokens <= 8) return run.template operator()<1, false>();
    if (arguments.tokens <= 16) return run.template operator()<2, false>();
    return run.template operator()<4, false>();
  }
}

std::vector<std::uint16_t> multiply(const HostBlob& blob, const HostActivations& x, const Case& c) {
  return multiply_on_host(blob, x, c, [](const auto& weight, const MatmulArguments& arguments, const Case& of) {
    const auto run = [&]<std::uint32_t Strips>() {
      weight.layout == BlobLayout::kRaw ? run_strips<Strips, true>(weight, arguments, of)
                                        : run_strips<Strips, false>(weight, arguments, of);
    };
    switch (of.config.strips) {
      case 1:
        return run.template operator()<1>();
      case 2:
        return run.template operator()<2>();
      case 4:
        return run.template operator()<4>();
      case 8:
        return run.template operator()<8>();
      case 12:
        return run.template operator()<12>();
      default:
        return run.template operator()<16>();
    }
  });
}

/// Every strip and stage count, split and width, whole and ragged shapes: near float64, and the same bits as raw.
TEST(SlowSmallBatchEmulation, EveryKindOfConfiguration) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 64, 1024}, MatrixShape{1, 1, 1}, MatrixShape{1, 100, 520},
                                   MatrixShape{1, 300, 72}, MatrixShape{1, 17, 1160}}) {
    const auto values = make_tensor(shape, Filling::kEscapes1p5, 3);
    const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
    for (const std::uint32_t tokens : {1U, 9U, 20U, 64U, 100U}) {
      const HostActivations x(tokens, shape.cols, (shape.cols + 7) / 8 * 8, 0, tokens);
      for (const std::uint32_t strips : {1U, 2U, 4U, 8U, 12U, 16U}) {
        if ((tokens > 64) != (strips == 12) || (tokens == 64 && strips < 4)) continue;
        Case c{.tokens = tokens, .config = {strips, 2 + static_cast<std::uint32_t>(seed % 2)}, .seed = ++seed};
        if (tokens > 16) c.config.stages = 2;
        c.config.split = seed % 3 != 0;
        c.config.dependent_launch = seed % 5 < 2;
        c.config.warpgroup = strips >= 8 || tokens == 64 || (strips == 4 && seed % 2 == 0);
        if (c.config.warpgroup) c.config.stages = 2;
        const auto expected = multiply(raw, x, c);
        EXPECT_TRUE(near_float64(expected, x.data(), x.stride, values, shape, tokens)) << describe_case(shape, c);
        EXPECT_EQ(multiply(tiled, x, c), expected) << describe_case(shape, c);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(SmallBatchEmulation, EveryFillingEqualsRaw) {
  const MatrixShape shape{1, 47, 584};
  for (const Filling filling : kAllFillings) {
    const auto values = make_tensor(shape, filling, 6);
    const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
    const HostActivations x(3, shape.cols, shape.cols, 0, 2);
    for (const MatmulConfig& config : {MatmulConfig{1, 3}, MatmulConfig{.strips = 4, .stages = 2, .warpgroup = true}}) {
      const Case c{.tokens = 3, .config = config, .seed = config.strips};
      EXPECT_EQ(multiply(tiled, x, c), multiply(raw, x, c)) << name_of(filling) << ", " << describe_case(shape, c);
    }
  }
}

/// Lists of every length up to exponent planes, in the slot and beyond its room; all 65,536 values.
TEST(SmallBatchEmulation, EveryListAndValue) {
  const ListsAndValues tensor;
  const MatrixShape& shape = tensor.shape;
  const auto& values = tensor.values;
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_EQ(tiled.placed.layout, BlobLayout::kTiled);
  const HostActivations x(8, shape.cols, shape.cols, 0, 2);
  for (const std::uint32_t strips : {1U, 2U, 4U}) {
    const Case c{.tokens = 8, .config = {strips, 2}, .seed = strips};
    EXPECT_EQ(multiply(tiled, x, c), multiply(raw, x, c)) << describe_case(shape, c);
  }
}

TEST(SmallBatchEmulation, StridesOffsetsBiasAndBatch) {
  const MatrixShape shape{3, 35, 203}, one{1, 35, 203};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 8);
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  std::vector<std::uint16_t> bias(shape.rows);
  Random random(5);
  for (auto& value : bias) value = to_bf16(static_cast<float>(random.normal()));
  for (std::uint64_t matrix = 0; matrix < shape.batch; ++matrix) {
    const auto part = std::span(values).subspan(matrix * one.rows * one.cols, one.rows * one.cols);
    for (const auto& [stride, offset] : {std::array<std::uint64_t, 2>{203, 0}, {208, 0}, {208, 8}, {208, 3}}) {
      const HostActivations x(10, shape.cols, stride, offset, 7);
      for (const MatmulConfig& config :
           {MatmulConfig{2, 3}, MatmulConfig{.strips = 4, .stages = 2, .warpgroup = true}}) {
        const Case c{.tokens = 10, .config = config, .y_gap = stride % 4, .matrix = matrix, .bias = bias.data()};
        const auto y = multiply(tiled, x, c);
        EXPECT_TRUE(near_float64(y, x.data(), x.stride, part, one, c.tokens, c.bias)) << describe_case(shape, c);
        EXPECT_EQ(multiply(raw, x, c), y);
      }
    }
  }
}

/// Row m of Y has the same bits for every number of tokens, stages and blocks, and whatever the timing.
TEST(SmallBatchEmulation, BatchInvariantAndDeterministic) {
  const MatrixShape shape{1, 48, 328};
  const auto values = make_tensor(shape, Filling::kTrained, 4);
  const auto blob = HostBlob::encoded(values, shape);
  const HostActivations x(64, shape.cols, shape.cols, 0, 1);
  for (const MatmulConfig& kind : {MatmulConfig{1, 2}, MatmulConfig{2, 2}, MatmulConfig{4, 2},
                                   MatmulConfig{.strips = 4, .stages = 2, .warpgroup = true},
                                   MatmulConfig{.strips = 8, .stages = 2, .warpgroup = true}}) {
    const std::uint32_t most = kind.warpgroup ? 64 : 32;
    const auto expected = multiply(blob, x, {.tokens = most, .config = kind});
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      Case c{.tokens = static_cast<std::uint32_t>(1 + seed * 31 % 32),
             .config = kind,
             .multiprocessors = static_cast<std::uint32_t>(1 + seed % 4),
             .seed = seed};
      if (c.tokens <= 16 && !kind.warpgroup) c.config.stages += static_cast<std::uint32_t>(seed % 3);
      const auto y = multiply(blob, x, c);
      EXPECT_TRUE(std::equal(y.begin(), y.end(), expected.begin())) << describe_case(shape, c);
    }
  }
}

}  // namespace
}  // namespace unweight::test
