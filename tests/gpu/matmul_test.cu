// SPDX-License-Identifier: Apache-2.0
//
// matmul() on a device. Its oracle is itself on raw blobs, bit for bit; those are compared with float64. All but the
// slow suite also run under compute-sanitizer (bench/gpu/run_all.sh).
#include "gpu/device_fixture.cuh"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

/// All with so many stages that this device can run for so many tokens; where these do not matter, with two only.
std::vector<MatmulConfig> configurations(const DeviceBlob& weight, std::uint32_t tokens, std::uint32_t stages) {
  std::vector<MatmulConfig> all;
  for (const std::uint32_t strips : {1U, 2U, 4U, 8U, 12U, 16U}) {
    for (const bool split : {false, true}) {
      for (const bool dependent : {false, true}) {
        for (const bool warpgroup : {false, true}) {
          const MatmulConfig config{strips, stages, split, dependent, warpgroup};
          if (!config.uses_stages(tokens) && stages != 2) continue;
          if (can_implement(weight, tokens, config)) all.push_back(config);
        }
      }
    }
  }
  return all;
}

/// The simplest that must give the same bits.
MatmulConfig plain_of(const MatmulConfig& config) {
  return {.strips = config.strips, .stages = 2, .split = config.split, .warpgroup = config.warpgroup};
}

/// A matrix of activations on the device, N(0, 1), with gaps of NaN between rows and before the first.
struct Activations {
  Activations(std::uint64_t tokens, std::uint64_t cols, std::uint64_t stride_in, std::uint64_t offset_in,
              std::uint64_t seed)
      : stride(stride_in), offset(offset_in), host(offset + tokens * stride, 0x7fc0) {
    fill_activations(host.data() + offset, tokens, cols, stride, seed);
    memory = DeviceArray<std::uint16_t>(std::span<const std::uint16_t>(host));
  }
  [[nodiscard]] const std::uint16_t* data() const { return memory.data() + offset; }
  [[nodiscard]] const std::uint16_t* values() const { return host.data() + offset; }

  std::uint64_t stride, offset;
  std::vector<std::uint16_t> host;
  DeviceArray<std::uint16_t> memory;
};

/// Words at a workspace's begin that must be 0 between launches.
std::size_t flag_count(const DeviceBlob& weight) { return 8 * weight.multiprocessors(); }

/// Flags of 0, and NaN where partial sums go.
DeviceArray<std::uint32_t> poisoned_workspace(const DeviceBlob& weight) {
  DeviceArray<std::uint32_t> workspace(matmul_workspace_bytes(weight) / sizeof(std::uint32_t));
  EXPECT_CUDA(cudaMemset(workspace.data(), 0xff, workspace.size_bytes()));
  EXPECT_CUDA(cudaMemset(workspace.data(), 0, flag_count(weight) * sizeof(std::uint32_t)));
  return workspace;
}

class MatmulOnDevice : public DeviceTest {
 protected:
  /// Y of a poisoned output, checked for writes outside of it; the workspace's flags must be zero again.
  std::vector<std::uint16_t> run(const DeviceBlob& weight, const Activations& x, std::uint32_t tokens,
                                 const MatmulConfig& config, std::uint64_t y_gap = 0, std::uint64_t y_offset = 0,
                                 const std::uint16_t* bias = nullptr, std::uint64_t matrix = 0) {
    if (workspace_.size() == 0) workspace_ = poisoned_workspace(weight);
    const std::uint64_t rows = weight.shape().rows;
    const MatrixShape y_shape{1, tokens, rows};
    GuardedOutput y(y_shape, rows + y_gap, y_offset);
    const auto done = matmul(weight,
                             {.x = x.data(),
                              .x_stride = x.stride,
                              .y = y.data(),
                              .y_stride = y.row_stride(),
                              .bias = bias,
                              .tokens = tokens,
                              .matrix = matrix,
                              .workspace = workspace_.data()},
                             config, nullptr);
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_CUDA(cudaDeviceSynchronize());
    std::vector<std::uint16_t> values(tokens * rows);
    EXPECT_CUDA(
        cudaMemcpy2D(values.data(), 2 * rows, y.data(), 2 * y.row_stride(), 2 * rows, tokens, cudaMemcpyDeviceToHost));
    y.check(values, describe(config));
    std::vector<std::uint32_t> flags(flag_count(weight));
    EXPECT_CUDA(cudaMemcpy(flags.data(), workspace_.data(), 4 * flags.size(), cudaMemcpyDeviceToHost));
    EXPECT_EQ(flags, std::vector<std::uint32_t>(flags.size()));
    return values;
  }

  DeviceArray<std::uint32_t> workspace_;
};
using SlowMatmulOnDevice = MatmulOnDevice;

void expect_equal(const std::vector<std::uint16_t>& found, const std::vector<std::uint16_t>& wanted,
                  const std::string& what) {
  const auto [at, other] = std::mismatch(found.begin(), found.end(), wanted.begin(), wanted.end());
  if (at == found.end() && other == wanted.end()) return;
  std::size_t wrong = 0, last = 0;
  for (std::size_t i = 0; i < std::min(found.size(), wanted.size()); ++i) {
    if (found[i] != wanted[i]) ++wrong, last = i;
  }
  ADD_FAILURE() << what << ": value " << at - found.begin() << " is " << *at << ", not " << *other << "; in all "
                << wrong << " of " << wanted.size() << ", the last one at " << last;
}

struct ShapeAndStages {
  std::uint64_t rows, cols;
  std::uint32_t stages;
};

void PrintTo(const ShapeAndStages& p, std::ostream* out) { *out << p.rows << "x" << p.cols << "stages" << p.stages; }

std::vector<ShapeAndStages> shapes_and_stages() {
  std::vector<ShapeAndStages> all;
  for (const auto& [rows, cols] :
       {std::array<std::uint64_t, 2>{1, 64}, {200, 328}, {33, 1096}, {2200, 64}, {64, 1024}}) {
    for (std::uint32_t stages = 2; stages <= 8; ++stages) all.push_back({rows, cols, stages});
  }
  return all;
}

class ConfigurationsOnDevice : public MatmulOnDevice, public testing::WithParamInterface<ShapeAndStages> {};

INSTANTIATE_TEST_SUITE_P(, ConfigurationsOnDevice, testing::ValuesIn(shapes_and_stages()),
                         [](const auto& test) { return testing::PrintToString(test.param); });

TEST_P(ConfigurationsOnDevice, EqualRaw) {
  const MatrixShape shape{1, GetParam().rows, GetParam().cols};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 3);
  const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_TRUE(tiled.device && raw.device);
  for (const std::uint32_t tokens : {1U, 8U, 13U, 32U, 64U, 65U, 130U, 600U}) {
    const Activations x(tokens, shape.cols, shape.cols, 0, tokens);
    std::map<decltype(kind_of({})), std::vector<std::uint16_t>> by_kind;
    for (const MatmulConfig& config : configurations(*raw.device, tokens, GetParam().stages)) {
      const std::string what = std::to_string(tokens) + " tokens, " + describe(config);
      auto& expected = by_kind[kind_of(config)];
      if (expected.empty()) {
        expected = run(*raw.device, x, tokens, plain_of(config));
        EXPECT_TRUE(near_float64(expected, x.values(), x.stride, values, shape, tokens)) << what;
      }
      expect_equal(run(*raw.device, x, tokens, config), expected, "raw " + what);
      if (!can_implement(*tiled.device, tokens, config)) continue;
      expect_equal(run(*tiled.device, x, tokens, config), expected, what);
    }
    if (HasFailure()) return;
  }
}

/// Also row m of Y for every number of tokens: the same bits.
TEST_F(MatmulOnDevice, EveryNumberOfTokensGivesTheSameRows) {
  const MatrixShape shape{1, 80, 712};
  const auto values = make_tensor(shape, Filling::kTrained, 4);
  const auto blob = UploadedBlob::encoded(values, shape);
  ASSERT_TRUE(blob.device);
  const Activations x(64, shape.cols, shape.cols, 0, 1);
  for (const MatmulConfig& config : {MatmulConfig{1, 2}, MatmulConfig{2, 2, true}, MatmulConfig{4, 2},
                                     MatmulConfig{.strips = 4, .stages = 2, .warpgroup = true},
                                     MatmulConfig{.strips = 8, .stages = 2, .split = true, .warpgroup = true}}) {
    const std::uint32_t most = config.warpgroup ? 64 : 32;
    const auto all = run(*blob.device, x, most, config);
    for (std::uint32_t tokens = 1; tokens < most; ++tokens) {
      const auto some = run(*blob.device, x, tokens, config);
      expect_equal(some, {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(some.size())},
                   std::to_string(tokens) + " tokens, " + describe(config));
    }
  }
}

TEST_F(MatmulOnDevice, EveryFillingEqualsRaw) {
  for (const MatrixShape& shape : {MatrixShape{1, 48, 640}, MatrixShape{1, 47, 505}, MatrixShape{1, 300, 1111}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 6);
      const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
      ASSERT_TRUE(tiled.device && raw.device);
      const Activations x(9, shape.cols, shape.cols + 3, 1, 2);
      for (const std::uint32_t strips : {1U, 2U, 4U}) {
        const MatmulConfig config{strips, 3};
        const std::string what = name_of(filling) + ", " + describe(config);
        expect_equal(run(*tiled.device, x, 9, config), run(*raw.device, x, 9, config), what);
      }
    }
  }
}

/// All 65,536 values, lists of every length, and exponent planes. A single one at a time in X shows each weight itself.
TEST_F(MatmulOnDevice, EveryValueComesThrough) {
  const RichTensor tensor;
  const MatrixShape& shape = tensor.shape;
  const std::vector<std::uint16_t>& values = tensor.values;
  const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_TRUE(tiled.device && raw.device);
  ASSERT_EQ(tiled.device->layout(), BlobLayout::kTiled);
  for (std::uint32_t first = 0; first < shape.cols; first += 64) {
    // NaN and infinity times zero would hide the others of their row: compare with raw, bit for bit.
    Activations x(64, shape.cols, shape.cols, 0, first);
    std::fill(x.host.begin(), x.host.end(), 0);
    for (std::uint32_t t = 0; t < 64; ++t) x.host[t * shape.cols + first + t] = 0x3f80;
    x.memory = DeviceArray<std::uint16_t>(std::span<const std::uint16_t>(x.host));
    const MatmulConfig config{.strips = 4, .stages = 2, .warpgroup = true};
    expect_equal(run(*tiled.device, x, 64, config), run(*raw.device, x, 64, config), std::to_string(first));
  }
}

TEST_F(MatmulOnDevice, StridesOffsetsBiasAndBatch) {
  const MatrixShape shape{3, 75, 203};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 8);
  const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_TRUE(tiled.device && raw.device);
  std::vector<std::uint16_t> bias_values(shape.rows);
  Random random(5);
  for (auto& value : bias_values) value = to_bf16(static_cast<float>(random.normal()));
  const DeviceArray<std::uint16_t> bias{std::span<const std::uint16_t>(bias_values)};
  const MatmulConfig config{2, 3};
  for (std::uint64_t matrix = 0; matrix < shape.batch; ++matrix) {
    const MatrixShape one{1, shape.rows, shape.cols};
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(matrix * one.rows * one.cols);
    const std::vector<std::uint16_t> part(begin, begin + static_cast<std::ptrdiff_t>(one.rows * one.cols));
    std::vector<std::uint16_t> expected, with_bias;
    for (const auto& [stride, offset] :
         {std::array<std::uint64_t, 2>{203, 0}, {208, 0}, {208, 8}, {208, 3}, {211, 1}}) {
      const Activations x(20, shape.cols, stride, offset, 7);
      const std::string what = "stride " + std::to_string(stride) + ", offset " + std::to_string(offset);
      const auto y = run(*tiled.device, x, 20, config, stride % 4, offset, nullptr, matrix);
      if (expected.empty()) {
        expected = y;
        EXPECT_TRUE(near_float64(y, x.values(), x.stride, part, one, 20)) << what;
      }
      expect_equal(y, expected, what);
      expect_equal(run(*raw.device, x, 20, config, 0, 0, nullptr, matrix), expected, "raw, " + what);
      const auto biased = run(*tiled.device, x, 20, config, 5, 1, bias.data(), matrix);
      if (with_bias.empty()) with_bias = biased;
      expect_equal(biased, with_bias, "bias, " + what);
      EXPECT_TRUE(near_float64(biased, x.values(), x.stride, part, one, 20, bias_values.data())) << "bias, " << what;
    }
  }
}

/// A chain of launches that depend on one another, captured with every kind of configuration, on two streams at once.
TEST_F(MatmulOnDevice, ChainsInGraphsOnTwoStreams) {
  const MatrixShape shape{1, 1024, 1024};
  const auto values = make_tensor(shape, Filling::kTrained, 9);
  const auto blob = UploadedBlob::encoded(values, shape);
  ASSERT_TRUE(blob.device);
  const Activations x(8, 1024, 1024, 0, 3);
  constexpr int kLinks = 6;
  std::array<std::vector<std::uint16_t>, 2> expected;
  for (const bool dependent : {false, true}) {
    for (const bool split : {false, true}) {
      const MatmulConfig config{2, 4, split, dependent};
      std::array<cudaStream_t, 2> streams{};
      std::array<cudaGraphExec_t, 2> replays{};
      std::array<std::array<DeviceArray<std::uint16_t>, 2>, 2> buffers;
      std::array<DeviceArray<std::uint32_t>, 2> workspaces;
      for (std::size_t s = 0; s < 2; ++s) {
        ASSERT_CUDA(cudaStreamCreateWithFlags(&streams[s], cudaStreamNonBlocking));
        for (auto& buffer : buffers[s]) buffer = DeviceArray<std::uint16_t>(8 * 1024);
        workspaces[s] = poisoned_workspace(*blob.device);
        cudaGraph_t graph{};
        ASSERT_CUDA(cudaStreamBeginCapture(streams[s], cudaStreamCaptureModeGlobal));
        for (int link = 0; link < kLinks; ++link) {
          const auto done = matmul(*blob.device,
                                   {.x = link == 0 ? x.data() : buffers[s][(link + 1) % 2].data(),
                                    .x_stride = 1024,
                                    .y = buffers[s][link % 2].data(),
                                    .y_stride = 1024,
                                    .tokens = 8,
                                    .workspace = workspaces[s].data()},
                                   config, streams[s]);
          ASSERT_TRUE(done) << done.error().message;
        }
        ASSERT_CUDA(cudaStreamEndCapture(streams[s], &graph));
        ASSERT_CUDA(cudaGraphInstantiate(&replays[s], graph, 0));
        ASSERT_CUDA(cudaGraphDestroy(graph));
      }
      for (int round = 0; round < 5; ++round) {
        for (auto& pair : buffers) {
          for (auto& buffer : pair) ASSERT_CUDA(cudaMemset(buffer.data(), 0xff, buffer.size_bytes()));
        }
        ASSERT_CUDA(cudaDeviceSynchronize());
        for (std::size_t s = 0; s < 2; ++s) ASSERT_CUDA(cudaGraphLaunch(replays[s], streams[s]));
        ASSERT_CUDA(cudaDeviceSynchronize());
        for (std::size_t s = 0; s < 2; ++s) {
          const auto y = buffers[s][(kLinks - 1) % 2].download();
          if (expected[split].empty()) expected[split] = y;
          expect_equal(y, expected[split], describe(config) + ", stream " + std::to_string(s));
        }
      }
      for (std::size_t s = 0; s < 2; ++s) {
        ASSERT_CUDA(cudaGraphExecDestroy(replays[s]));
        ASSERT_CUDA(cudaStreamDestroy(streams[s]));
      }
    }
  }
}

TEST_F(MatmulOnDevice, ChoosesWhatItCanRun) {
  for (const MatrixShape& shape : {MatrixShape{1, 16, 64}, MatrixShape{1, 4096, 64}, MatrixShape{1, 28672, 64}}) {
    const auto values = make_tensor(shape, Filling::kTrained, 1);
    const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
    for (const UploadedBlob* blob : {&tiled, &raw}) {
      ASSERT_TRUE(blob->device);
      for (std::uint32_t tokens = 0; tokens <= 4096; tokens += tokens <= 64 ? 1 : 61) {
        const auto config = choose_matmul_config(*blob->device, tokens);
        ASSERT_TRUE(config) << config.error().message;
        const auto can = can_implement(*blob->device, tokens, *config);
        EXPECT_TRUE(can) << can.error().message;
      }
    }
  }
}

TEST_F(MatmulOnDevice, RefusesUnsoundArguments) {
  const MatrixShape shape{2, 64, 512};
  const auto blob = UploadedBlob::encoded(make_tensor(shape, Filling::kTrained, 1), shape);
  ASSERT_TRUE(blob.device);
  DeviceArray<std::uint16_t> memory(65536);
  const MatmulArguments sound{
      .x = memory.data(), .x_stride = 512, .y = memory.data() + 32768, .y_stride = 64, .tokens = 4};
  const auto expect_refused = [&](MatmulArguments arguments, MatmulConfig config, const std::string& part) {
    const auto result = matmul(*blob.device, arguments, config, nullptr);
    ASSERT_FALSE(result) << part;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  const auto changed = [&](auto&& change) {
    MatmulArguments arguments = sound;
    change(arguments);
    return arguments;
  };
  expect_refused(changed([](auto& a) { a.tokens = 65; }), {}, "tokens=65 needs warpgroup");
  expect_refused(changed([](auto& a) { a.tokens = 65; }), {.strips = 4, .warpgroup = true}, "strips=8, not 4");
  expect_refused(changed([](auto& a) { a.x_stride = 511; }), {}, "x_stride=511");
  expect_refused(changed([](auto& a) { a.y_stride = 63; }), {}, "y_stride=63");
  expect_refused(changed([](auto& a) { a.matrix = 2; }), {}, "matrix=2");
  expect_refused(changed([](auto& a) { a.x = nullptr; }), {}, "x is null");
  expect_refused(changed([](auto& a) { a.y = nullptr; }), {}, "y is null");
  expect_refused(changed([](auto& a) { a.y = reinterpret_cast<std::uint16_t*>(reinterpret_cast<char*>(a.y) + 1); }), {},
                 "y is null or not aligned");
  expect_refused(sound, {.split = true}, "workspace");
  expect_refused(sound, {.strips = 3}, "strips=3");
  expect_refused(sound, {.stages = 1}, "stages=1");
  expect_refused(sound, {.strips = 2, .warpgroup = true}, "warpgroup needs strips=4, 8, 12 or 16");
  expect_refused(sound, {.strips = 8}, "strips=8 needs warpgroup");
  expect_refused(changed([](auto& a) { a.tokens = 33; }), {}, "tokens=33");
  expect_refused(changed([](auto& a) { a.tokens = 64; }), {.strips = 4, .stages = 8, .warpgroup = true},
                 "shared memory");
  EXPECT_TRUE(matmul(*blob.device, changed([](auto& a) { a.tokens = 0; }), {}, nullptr));
}

TEST_F(MatmulOnDevice, PrefetchesAnyRange) {
  const MatrixShape shape{1, 640, 1024};
  const auto blob = UploadedBlob::encoded(make_tensor(shape, Filling::kTrained, 1), shape);
  ASSERT_TRUE(blob.device);
  const std::uint64_t size = blob.device->size_bytes();
  for (const auto& [begin, bytes] : {std::array<std::uint64_t, 2>{0, size},
                                     {0, 0},
                                     {1, 1},
                                     {size - 1, 1},
                                     {size, 5},
                                     {12345, UINT64_MAX},
                                     {UINT64_MAX, UINT64_MAX}}) {
    const auto done = prefetch_l2(*blob.device, begin, bytes, nullptr);
    EXPECT_TRUE(done) << done.error().message;
  }
}

/// Shapes, fillings, configurations and places at random; a failure prints its seed.
TEST_F(MatmulOnDevice, Random) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    unweight::test::Random random(seed);
    const MatrixShape shape{1 + random.below(2), 1 + random.below(400), 1 + random.below(1500)};
    const Filling filling = kAllFillings[random.below(kAllFillings.size())];
    const auto values = make_tensor(shape, filling, seed);
    const UploadedBlob blob = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
    ASSERT_TRUE(blob.device && raw.device);
    const auto tokens = static_cast<std::uint32_t>(1 + random.below(random.below(4) == 0 ? 700 : 64));
    const Activations x(tokens, shape.cols, shape.cols + random.below(2) * random.below(9), random.below(9), seed);
    std::vector<MatmulConfig> configs;
    for (auto most = static_cast<std::uint32_t>(tokens > 64 ? 2 : 2 + random.below(7)); configs.empty(); --most) {
      ASSERT_GE(most, 2U);
      configs = configurations(*raw.device, tokens, most);
    }
    const MatmulConfig config = configs[random.below(configs.size())];
    const std::uint64_t matrix = random.below(shape.batch), gap = random.below(5), offset = random.below(9);
    const std::string what = "seed " + std::to_string(seed) + ": " + std::to_string(shape.rows) + " x " +
                             std::to_string(shape.cols) + " " + name_of(filling) + ", " + std::to_string(tokens) +
                             " tokens, " + describe(config);
    const auto expected = run(*raw.device, x, tokens, config, 0, 0, nullptr, matrix);
    if (can_implement(*blob.device, tokens, config)) {
      expect_equal(run(*blob.device, x, tokens, config, gap, offset, nullptr, matrix), expected, what);
      expect_equal(run(*blob.device, x, tokens, config, gap, offset, nullptr, matrix), expected, "again: " + what);
    }
  }
}

/// Launches that may begin before the one in front has ended, with several items a block.
TEST_F(SlowMatmulOnDevice, ChainsOfManyTokens) {
  const MatrixShape shape{1, 28672, 512};
  const auto values = make_tensor(shape, Filling::kTrained, 9);
  const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
  ASSERT_TRUE(tiled.device && raw.device);
  for (const std::uint32_t tokens : {128U, 256U, 512U, 1024U}) {
    const Activations x(tokens, shape.cols, shape.cols, 0, tokens);
    for (const bool split : {false, true}) {
      MatmulConfig config{.strips = 8, .stages = 2, .split = split, .warpgroup = true};
      const auto expected = run(*raw.device, x, tokens, config);
      for (const bool dependent : {false, true}) {
        config.dependent_launch = dependent;
        constexpr std::size_t kLinks = 8;
        std::array<DeviceArray<std::uint16_t>, kLinks> ys;
        for (auto& y : ys) {
          y = DeviceArray<std::uint16_t>(tokens * shape.rows);
          ASSERT_CUDA(cudaMemset(y.data(), 0xff, y.size_bytes()));
        }
        ASSERT_CUDA(cudaDeviceSynchronize());
        for (auto& y : ys) {
          const auto done = matmul(*tiled.device,
                                   {.x = x.data(),
                                    .x_stride = x.stride,
                                    .y = y.data(),
                                    .y_stride = shape.rows,
                                    .tokens = tokens,
                                    .workspace = workspace_.data()},
                                   config, nullptr);
          ASSERT_TRUE(done) << done.error().message;
        }
        ASSERT_CUDA(cudaDeviceSynchronize());
        for (std::size_t link = 0; link < kLinks; ++link) {
          expect_equal(ys[link].download(), expected,
                       std::to_string(tokens) + " tokens, " + describe(config) + ", link " + std::to_string(link));
        }
      }
    }
  }
}

/// More items than multiprocessors, many rounds.
TEST_F(SlowMatmulOnDevice, LargeMatrices) {
  for (const MatrixShape& shape :
       {MatrixShape{1, 4096, 4096}, MatrixShape{1, 14000, 1000}, MatrixShape{1, 512, 14336}}) {
    const auto values = make_tensor(shape, Filling::kTrained, 1);
    const UploadedBlob tiled = UploadedBlob::encoded(values, shape), raw(raw_blob(values, shape));
    ASSERT_TRUE(tiled.device && raw.device);
    for (const std::uint32_t tokens : {1U, 16U, 32U, 64U, 128U, 1000U}) {
      const Activations x(tokens, shape.cols, shape.cols, 0, tokens);
      for (std::uint32_t stages = 2; stages <= 8; ++stages) {
        for (const MatmulConfig& config : configurations(*tiled.device, tokens, stages)) {
          const MatmulConfig plain = plain_of(config);
          if (!can_implement(*raw.device, tokens, plain)) continue;
          expect_equal(run(*tiled.device, x, tokens, config), run(*raw.device, x, tokens, plain), describe(config));
        }
      }
    }
  }
}

}  // namespace
}  // namespace unweight::test
