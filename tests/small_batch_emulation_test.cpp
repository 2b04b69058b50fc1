// SPDX-License-Identifier: Apache-2.0
//
// The small-batch kernel on the CPU (tests/emulation): the real kernel source, the launcher's own parameters.
#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
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

/// Rows of activations with gaps of NaN, at an offset from a 16-byte boundary.
struct HostActivations {
  HostActivations(std::uint64_t tokens, std::uint64_t cols, std::uint64_t stride_in, std::uint64_t offset_in,
                  std::uint64_t seed)
      : stride(stride_in), offset(offset_in), memory((offset + tokens * stride) / 8 + 1) {
    std::fill_n(&memory[0].values[0], memory.size() * 8, std::uint16_t{0x7fc0});
    fill_activations(data(), tokens, cols, stride, seed);
  }
  [[nodiscard]] std::uint16_t* data() { return &memory[0].values[0] + offset; }
  [[nodiscard]] const std::uint16_t* data() const { return &memory[0].values[0] + offset; }

  struct alignas(16) Eight {
    std::array<std::uint16_t, 8> values;
  };
  std::uint64_t stride, offset;
  std::vector<Eight> memory;
};

template <class Config>
void run_kernel(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                std::uint32_t multiprocessors, std::uint64_t seed) {
  using Traits = sm90::SmallBatchTraits<Config>;
  const sm90::SmallBatchParams params = launch::small_batch_params(weight, arguments, config, multiprocessors);
  const auto tensor_map = [](const launch::MatrixInMemory& m, std::uint32_t box_rows, std::uint32_t box_tiles) {
    return CUtensorMap{.values = m.values,
                       .rows = m.rows,
                       .cols = m.cols,
                       .stride = m.stride,
                       .box_rows = box_rows,
                       .box_tiles = box_tiles};
  };
  const CUtensorMap x_map = tensor_map(launch::activations(weight, arguments), Traits::kXCopyTokens, Traits::kXTiles);
  CUtensorMap w_map = tensor_map(launch::raw_matrix(weight, arguments.matrix), Traits::kItemRows, Traits::kColTiles);
  if constexpr (!Config::kRaw) {
    w_map.tiles = launch::matrix_tiles(weight, arguments.matrix);
    w_map.tiles_per_strip = params.tiles_per_strip;
    w_map.strips = params.strips;
    w_map.box_strips = Config::kStrips;
  }
  const std::uint32_t shared_bytes = sm90::SmallBatchMap<Config>(config.stages, params.deal.parts).size;
  const std::uint32_t cluster = Traits::kSharers * params.deal.parts;
  emulation::launch({params.deal.blocks * Traits::kSharers, Traits::kThreads, cluster}, shared_bytes, seed,
                    [&] { sm90::small_batch_kernel<Config>(params, x_map, w_map); });
}

template <std::uint32_t Strips, bool Raw>
void run_strips(const launch::PlacedBlob& weight, const MatmulArguments& arguments, const MatmulConfig& config,
                std::uint32_t multiprocessors, std::uint64_t seed) {
  const auto run = [&]<std::uint32_t TokenTiles, bool Warpgroup, bool ShareX = false>() {
    run_kernel<sm90::SmallBatchConfig<Strips, TokenTiles, Raw, Warpgroup, ShareX>>(weight, arguments, config,
                                                                                   multiprocessors, seed);
  };
  if constexpr (Strips % 4 == 0) {
    if (config.warpgroup) {
      if constexpr (Strips == 8) {
        if (config.share_x) {
          return arguments.tokens > 128 ? run.template operator()<32, true, true>()
                                        : run.template operator()<16, true, true>();
        }
        if (arguments.tokens > 128) return run.template operator()<32, true>();
        if (arguments.tokens > 64) return run.template operator()<16, true>();
      }
      return arguments.tokens <= 32 ? run.template operator()<4, true>() : run.template operator()<8, true>();
    }
  }
  if constexpr (Strips <= 4) {
    if (arguments.tokens <= 8) return run.template operator()<1, false>();
    if (arguments.tokens <= 16) return run.template operator()<2, false>();
    return run.template operator()<4, false>();
  }
}

struct Case {
  std::uint32_t tokens = 1;
  MatmulConfig config;
  std::uint64_t y_gap = 0;
  std::uint64_t matrix = 0;
  const std::uint16_t* bias = nullptr;
  std::uint32_t multiprocessors = 3;
  std::uint64_t seed = 1;
};

/// Y, after a check that nothing around it was written and that the workspace's flags are zero again.
std::vector<std::uint16_t> multiply(const HostBlob& blob, const HostActivations& x, const Case& c) {
  constexpr std::uint16_t kPoison = 0xa5a5;
  constexpr std::uint64_t kGuard = 64;
  const launch::PlacedBlob& weight = blob.placed;
  const std::uint64_t rows = weight.shape.rows, stride = rows + c.y_gap;
  std::vector<std::uint16_t> memory(kGuard + c.tokens * stride + kGuard, kPoison);
  constexpr std::uint64_t kItemBytes = 256 * 128 * sizeof(float);
  const std::uint64_t flag_bytes = launch::small_batch_flag_bytes(c.multiprocessors);
  std::vector<std::uint32_t> workspace((flag_bytes + c.multiprocessors * kItemBytes) / 4, 0x7fc00000);  // NaN
  std::fill_n(workspace.begin(), flag_bytes / 4, 0);
  const MatmulArguments arguments{.x = x.data(),
                                  .x_stride = x.stride,
                                  .y = memory.data() + kGuard,
                                  .y_stride = stride,
                                  .bias = c.bias,
                                  .tokens = c.tokens,
                                  .matrix = c.matrix,
                                  .workspace = workspace.data()};
  const bool raw = weight.layout == BlobLayout::kRaw;
  const auto run = [&]<std::uint32_t Strips>() {
    raw ? run_strips<Strips, true>(weight, arguments, c.config, c.multiprocessors, c.seed)
        : run_strips<Strips, false>(weight, arguments, c.config, c.multiprocessors, c.seed);
  };
  switch (c.config.strips) {
    case 1:
      run.operator()<1>();
      break;
    case 2:
      run.operator()<2>();
      break;
    case 4:
      run.operator()<4>();
      break;
    case 8:
      run.operator()<8>();
      break;
    default:
      run.operator()<16>();
  }
  std::vector<std::uint16_t> y;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const std::uint64_t at = i - kGuard;
    if (i >= kGuard && at < c.tokens * stride && at % stride < rows) {
      y.push_back(memory[i]);
    } else {
      EXPECT_EQ(memory[i], kPoison) << "beside Y, at " << static_cast<std::int64_t>(at);
    }
  }
  EXPECT_TRUE(std::all_of(workspace.begin(), workspace.begin() + static_cast<std::ptrdiff_t>(flag_bytes / 4),
                          [](std::uint32_t flag) { return flag == 0; }));
  return y;
}

std::string describe_case(const MatrixShape& shape, const Case& c) {
  return std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + ", " + std::to_string(c.tokens) +
         " tokens, " + describe(c.config) + ", seed " + std::to_string(c.seed);
}

/// Every strip and stage count, split and width, whole and ragged shapes: near float64, and the same bits as raw.
TEST(SmallBatchEmulation, EveryKindOfConfiguration) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 64, 1024}, MatrixShape{1, 1, 1}, MatrixShape{1, 100, 520},
                                   MatrixShape{1, 300, 72}, MatrixShape{1, 17, 1160}}) {
    const auto values = make_tensor(shape, Filling::kEscapes1p5, 3);
    const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
    for (const std::uint32_t tokens : {1U, 9U, 20U, 64U}) {
      const HostActivations x(tokens, shape.cols, (shape.cols + 7) / 8 * 8, 0, tokens);
      for (const std::uint32_t strips : {1U, 2U, 4U, 8U, 16U}) {
        if (tokens == 64 && strips < 4) continue;
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
      const Case c{.tokens = 10, .config = {2, 3}, .y_gap = stride % 4, .matrix = matrix, .bias = bias.data()};
      const auto y = multiply(tiled, x, c);
      EXPECT_TRUE(near_float64(y, x.data(), x.stride, part, one, c.tokens, c.bias)) << describe_case(shape, c);
      EXPECT_EQ(multiply(raw, x, c), y);
    }
  }
}

/// More than 64 tokens: blocks of 128 or 256, the last one not full.
TEST(SmallBatchEmulation, ManyTokens) {
  const MatrixShape shape{1, 200, 312};  // an odd number of tiles along K
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 9);
  const HostBlob tiled = HostBlob::encoded(values, shape), raw(raw_blob(values, shape));
  for (const std::uint32_t tokens : {65U, 128U, 130U, 300U}) {
    for (const bool aligned : {true, false}) {
      const HostActivations x(tokens, shape.cols, shape.cols, aligned ? 0 : 3, tokens);
      for (const bool split : {false, true}) {
        Case c{.tokens = tokens, .config = {.strips = 8, .stages = 2, .split = split, .warpgroup = true}, .y_gap = 8};
        const auto y = multiply(raw, x, c);
        EXPECT_TRUE(near_float64(y, x.data(), x.stride, values, shape, tokens)) << describe_case(shape, c);
        c.seed = 2;
        c.config.stages = 3;
        EXPECT_EQ(multiply(tiled, x, c), y) << describe_case(shape, c);
        c.config.share_x = true;
        const auto shared = multiply(tiled, x, c);
        c.config.stages = 2;
        EXPECT_EQ(shared, split ? multiply(raw, x, c) : y) << describe_case(shape, c);
      }
    }
  }
}

/// More blocks of tokens than pass W together, and the rest of them; a block of a pair that has no rows.
TEST(SmallBatchEmulation, BandsOfTokens) {
  const MatrixShape shape{1, 90, 64};
  const std::uint32_t tokens = 9 * 256 + 3;
  const auto values = make_tensor(shape, Filling::kTrained, 9);
  const HostBlob tiled = HostBlob::encoded(values, shape);
  const HostActivations x(tokens, shape.cols, shape.cols, 0, tokens);
  for (const bool share_x : {false, true}) {
    const Case c{.tokens = tokens, .config = {.strips = 8, .stages = 3, .warpgroup = true, .share_x = share_x}};
    EXPECT_TRUE(near_float64(multiply(tiled, x, c), x.data(), x.stride, values, shape, tokens)) << share_x;
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
