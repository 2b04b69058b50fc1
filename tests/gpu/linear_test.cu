// SPDX-License-Identifier: Apache-2.0
//
// Linear and DecodeAhead on a device: every pipeline gives the bits that it should, for any number of tokens.
#include "gpu/device_fixture.cuh"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <capi/plan_object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <unweight/cublas.hpp>
#include <unweight/pipelines.hpp>
#include <unweight/unweight_cuda.h>
#include <unweight/version.h>
#include <vector>

namespace unweight::test {
namespace {

constexpr std::uint32_t kMostTokens = 3000;

/// A plan for this device with one choice for some buckets of one weight.
Plan plan_for(const WeightClass& weight, const std::vector<TokenChoice>& choices) {
  Plan plan;
  const DeviceIdentity device = device_identity().value();
  plan.origin.gpu = device.gpu;
  plan.origin.multiprocessors = device.multiprocessors;
  plan.origin.kernels = device.kernels;
  plan.origin.library = UNWEIGHT_VERSION_STRING;
  PlanWeight entry{weight, 0, {}};
  for (const TokenChoice& choice : choices) entry.cells.push_back({choice.tokens, 0, {{choice.choice, 0, 0}}, {}});
  plan.weights.push_back(std::move(entry));
  return plan;
}

/// The same choice for every bucket.
std::vector<TokenChoice> everywhere(const Choice& choice) {
  std::vector<TokenChoice> all;
  for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) all.push_back({bucket_tokens(bucket), choice});
  return all;
}

class LinearOnDevice : public DeviceTest {
 protected:
  static constexpr MatrixShape kShape{1, 200, 328};
  static constexpr WeightClass kTiled{200, 328, BlobLayout::kTiled, ExceptionClass::kUsual};

  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      values.push_back(make_tensor(kShape, Filling::kTrained, seed));
      blobs.push_back(UploadedBlob::encoded(values.back(), kShape));
      ASSERT_EQ(blobs.back().device->layout(), BlobLayout::kTiled);
    }
    x_values.resize(kMostTokens * kShape.cols);
    fill_activations(x_values.data(), kMostTokens, kShape.cols, kShape.cols, 2);
    x = DeviceArray<std::uint16_t>(std::span<const std::uint16_t>(x_values));
    y = DeviceArray<std::uint16_t>(kMostTokens * kShape.rows + 8);
    scratch = DeviceArray<std::uint16_t>(kShape.rows * kShape.cols);
    other_scratch = DeviceArray<std::uint16_t>(kShape.rows * kShape.cols);
    const auto probe = DecodedMatmul::create(
        weight(), {.x = x.data(), .x_stride = kShape.cols, .y = y.data(), .y_stride = kShape.rows, .tokens = 8});
    has_cublas = probe.has_value();
  }

  [[nodiscard]] const DeviceBlob& weight(std::size_t i = 0) const { return *blobs[i].device; }

  Linear make(const LinearOptions& options, std::size_t i = 0) {
    auto linear = Linear::create(weight(i), options);
    EXPECT_TRUE(linear) << linear.error().message;
    reserve(*linear);
    return *linear;
  }

  void reserve(const Linear& linear) {
    if (workspace.size() >= linear.workspace_bytes()) return;
    workspace = DeviceArray<std::byte>(linear.workspace_bytes());
    EXPECT_CUDA(cudaMemset(workspace.data(), 0, workspace.size_bytes()));
  }

  [[nodiscard]] LinearArguments arguments(std::uint32_t tokens, std::uint64_t y_offset = 0) const {
    return {.x = x.data(),
            .x_stride = kShape.cols,
            .y = y.data() + y_offset,
            .y_stride = kShape.rows,
            .tokens = tokens,
            .workspace = workspace.data(),
            .scratch = scratch.data()};
  }

  /// Y of a poisoned output.
  template <class Enqueue>
  std::vector<std::uint16_t> result_of(std::uint32_t tokens, std::uint64_t y_offset, Enqueue enqueue) {
    EXPECT_CUDA(cudaMemset(y.data(), 0xff, y.size_bytes()));
    EXPECT_CUDA(cudaMemset(scratch.data(), 0xff, scratch.size_bytes()));
    const Result<void> done = enqueue();
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_CUDA(cudaDeviceSynchronize());
    const auto all = y.download();
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(y_offset);
    return {begin, begin + static_cast<std::ptrdiff_t>(tokens * kShape.rows)};
  }

  std::vector<std::uint16_t> run(const Linear& linear, std::uint32_t tokens, std::uint64_t y_offset = 0) {
    return result_of(tokens, y_offset, [&] { return linear.run(arguments(tokens, y_offset), nullptr); });
  }

  std::vector<std::uint16_t> fused(const DeviceBlob& blob, std::uint32_t tokens, const MatmulConfig& config,
                                   std::uint64_t y_offset = 0) {
    const LinearArguments a = arguments(tokens, y_offset);
    return result_of(tokens, y_offset, [&] {
      return matmul(blob, {a.x, a.x_stride, a.y, a.y_stride, a.bias, a.tokens, a.matrix, a.workspace}, config, nullptr);
    });
  }

  std::vector<std::vector<std::uint16_t>> values;
  std::vector<UploadedBlob> blobs;
  std::vector<std::uint16_t> x_values;
  DeviceArray<std::uint16_t> x, y, scratch, other_scratch;
  DeviceArray<std::byte> workspace;
  bool has_cublas = false;
};

constexpr std::uint32_t kTokens[] = {1, 2, 3, 8, 13, 32, 33, 64, 65, 128, 200, 600, 1024, 2048, 3000};

TEST_F(LinearOnDevice, AnyNumberOfTokensByTheRules) {
  const Linear linear = make({});
  for (const std::uint32_t tokens : kTokens) {
    const auto found = run(linear, tokens);
    EXPECT_TRUE(near_float64(found, x_values.data(), kShape.cols, values[0], kShape, tokens)) << tokens;
    EXPECT_EQ(found, run(linear, tokens)) << tokens;
    const ResolvedChoice& choice = linear.choice(tokens);
    EXPECT_EQ(choice.source, ChoiceSource::kCostModel) << tokens;
    if (choice.choice.pipeline == Pipeline::kFused) {
      EXPECT_EQ(found, fused(weight(), tokens, choice.choice.config)) << tokens;
    }
  }
  const auto nothing = linear.run(arguments(0), nullptr);
  EXPECT_TRUE(nothing) << nothing.error().message;
}

TEST_F(LinearOnDevice, FollowsThePlan) {
  const Choice few{Pipeline::kFused, {.strips = 1, .stages = 3, .split = true}, {}};
  const Plan plan = plan_for(kTiled, {{8, few}});
  const Linear linear = make({.plan = &plan});
  EXPECT_TRUE(linear.notes().empty());
  EXPECT_EQ(linear.choice(5).source, ChoiceSource::kPlan);
  EXPECT_EQ(run(linear, 5), fused(weight(), 5, few.config));
  Plan foreign = plan;
  foreign.origin.gpu = "another";
  const Linear without = make({.plan = &foreign});
  EXPECT_EQ(without.choice(5).source, ChoiceSource::kCostModel);
  ASSERT_EQ(without.notes().size(), 1U);
  Plan illegal = plan_for(kTiled, {{8, {Pipeline::kFused, {.strips = 3}, {}}}});
  const auto refused = Linear::create(weight(), {.plan = &illegal});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("strips=3 must be 1, 2, 4, 8, 12 or 16"), std::string::npos)
      << refused.error().message;
}

TEST_F(LinearOnDevice, DependentLaunchGivesTheSameBits) {
  const Linear linear = make({}), dependent = make({.dependent_launch = true});
  for (const std::uint32_t tokens : {1U, 16U, 64U, 600U}) {
    EXPECT_TRUE(dependent.choice(tokens).choice.config.dependent_launch ||
                dependent.choice(tokens).choice.pipeline != Pipeline::kFused);
    EXPECT_EQ(run(linear, tokens), run(dependent, tokens)) << tokens;
  }
}

TEST_F(LinearOnDevice, DecodedAndRawHaveTheSameBits) {
  if (!has_cublas) GTEST_SKIP() << "no cuBLASLt";
  const DeviceArray<std::byte> raw_memory(encode_bound(kShape).value());
  const auto raw = decode_to_raw(weight(), raw_memory.data(), nullptr);
  ASSERT_TRUE(raw) << raw.error().message;
  EXPECT_EQ(raw->layout(), BlobLayout::kRaw);
  const auto decoded_choices = everywhere({Pipeline::kDecoded, {}, {}}),
             raw_choices = everywhere({Pipeline::kRaw, {}, {}});
  const Linear decoded = make({.overrides = decoded_choices});
  const auto from_raw = Linear::create(*raw, {.overrides = raw_choices});
  ASSERT_TRUE(from_raw) << from_raw.error().message;
  reserve(*from_raw);
  EXPECT_EQ(decoded.scratch_bytes(), 2 * kShape.rows * kShape.cols / 256 * 256 + 256);
  EXPECT_EQ(from_raw->scratch_bytes(), 0U);
  for (const std::uint32_t tokens : kTokens) {
    const auto found = run(decoded, tokens);
    EXPECT_EQ(found, run(*from_raw, tokens)) << tokens;
    EXPECT_TRUE(near_float64(found, x_values.data(), kShape.cols, values[0], kShape, tokens)) << tokens;
  }
  const std::vector<std::uint16_t> bias_values(kShape.rows, 0x3f80);
  const DeviceArray<std::uint16_t> bias{std::span<const std::uint16_t>(bias_values)};
  LinearArguments with_bias = arguments(70);
  with_bias.bias = bias.data();
  const auto biased = result_of(70, 0, [&] { return decoded.run(with_bias, nullptr); });
  EXPECT_TRUE(near_float64(biased, x_values.data(), kShape.cols, values[0], kShape, 70, bias_values.data()));
  // The fused kernel on the raw blob gives what it gives on the tiled one.
  EXPECT_EQ(fused(*raw, 8, {}), fused(weight(), 8, {}));
}

TEST_F(LinearOnDevice, OperandsThatCuBlasDoesNotTakeGoToTheFusedKernel) {
  if (!has_cublas) GTEST_SKIP() << "no cuBLASLt";
  const auto choices = everywhere({Pipeline::kDecoded, {}, {}});
  const Linear linear = make({.overrides = choices});
  for (const std::uint32_t tokens : {1U, 64U, 600U}) {
    auto config = choose_matmul_config(weight(), bucket_tokens(token_bucket(tokens)));
    ASSERT_TRUE(config);
    EXPECT_EQ(run(linear, tokens, 1), fused(weight(), tokens, *config, 1)) << tokens;
  }
}

TEST_F(LinearOnDevice, InAGraphWithoutWarmUpOfTheHost) {
  for (const bool cublas : {false, true}) {
    if (cublas && !has_cublas) continue;
    const Linear linear = make({.cublas = cublas});
    for (const std::uint32_t tokens : {1U, 64U, 2048U}) {
      const auto expected = run(linear, tokens);
      cudaStream_t stream;
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      ASSERT_CUDA(cudaStreamCreate(&stream));
      ASSERT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
      const auto captured = linear.run(arguments(tokens), stream);
      EXPECT_TRUE(captured) << captured.error().message;
      ASSERT_CUDA(cudaStreamEndCapture(stream, &graph));
      ASSERT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
      EXPECT_EQ(result_of(tokens, 0,
                          [&]() -> Result<void> {
                            EXPECT_CUDA(cudaDeviceSynchronize());
                            EXPECT_CUDA(cudaGraphLaunch(executable, stream));
                            return {};
                          }),
                expected)
          << tokens;
      EXPECT_CUDA(cudaGraphExecDestroy(executable));
      EXPECT_CUDA(cudaGraphDestroy(graph));
      EXPECT_CUDA(cudaStreamDestroy(stream));
    }
  }
}

TEST_F(LinearOnDevice, ServesOtherWeightsOfItsKind) {
  const Linear first = make({});
  const auto second = first.for_weight(weight(1));
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(run(*second, 9), run(make({}, 1), 9));
  const MatrixShape small{1, 64, 64};
  const auto other = UploadedBlob::encoded(make_tensor(small, Filling::kTrained, 1), small);
  const auto refused = first.for_weight(*other.device);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("64 x 64"), std::string::npos) << refused.error().message;
}

TEST_F(LinearOnDevice, RefusesUnsoundArguments) {
  const auto choices = everywhere({Pipeline::kDecoded, {}, {}});
  const Linear fused_only = make({.cublas = false});
  const auto refused = [&](const Linear& linear, auto change, const std::string& part) {
    LinearArguments changed = arguments(64);
    change(changed);
    const auto done = linear.run(changed, nullptr);
    ASSERT_FALSE(done) << part;
    EXPECT_EQ(done.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(done.error().message.find(part), std::string::npos) << done.error().message;
  };
  refused(
      fused_only, [](auto& a) { a.tokens = 65537; }, "tokens=65537");
  refused(
      fused_only, [](auto& a) { a.x = nullptr; }, "x is null");
  refused(
      fused_only, [](auto& a) { a.x_stride = 8; }, "x_stride=8");
  refused(
      fused_only, [](auto& a) { a.matrix = 1; }, "matrix=1");
  if (!has_cublas) return;
  const Linear decoded = make({.overrides = choices});
  refused(
      decoded, [](auto& a) { a.scratch = nullptr; }, "the scratch is null");
  refused(
      decoded, [](auto& a) { a.scratch += 8; }, "not aligned to 256 bytes");
  refused(
      decoded, [](auto& a) { a.workspace = nullptr; }, "the workspace is null");
  refused(
      decoded, [](auto& a) { a.x = nullptr; }, "x or y is null");
  refused(
      decoded, [](auto& a) { a.y_stride = 192; }, "y_stride=192");
  refused(
      decoded, [](auto& a) { a.matrix = 1; }, "matrix=1");
  const auto without = Linear::create(weight(), {.overrides = choices, .scratch = false});
  ASSERT_FALSE(without);
  EXPECT_NE(without.error().message.find("needs a scratch"), std::string::npos) << without.error().message;
}

TEST_F(LinearOnDevice, EmptyTensors) {
  for (const MatrixShape& shape : {MatrixShape{1, 0, 64}, {0, 64, 64}}) {
    const auto host = encode({}, shape).value();
    const auto blob = DeviceBlob::create(host, nullptr);
    ASSERT_TRUE(blob) << blob.error().message;
    const auto linear = Linear::create(*blob);
    ASSERT_TRUE(linear) << linear.error().message;
    EXPECT_TRUE(linear->run({.tokens = 5}, nullptr));
    EXPECT_EQ(linear->scratch_bytes(), 0U);
  }
}

// ---- decoding ahead -------------------------------------------------------------------------------------------------

class DecodeAheadOnDevice : public LinearOnDevice {
 protected:
  void SetUp() override {
    LinearOnDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!has_cublas) GTEST_SKIP() << "no cuBLASLt";
    ASSERT_CUDA(cudaStreamCreateWithFlags(&main, cudaStreamNonBlocking));
    ASSERT_CUDA(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    const auto decoded = everywhere({Pipeline::kDecoded, {}, {}}),
               fused_choices = everywhere({Pipeline::kFused, {.strips = 8, .stages = 3, .warpgroup = true}, {}});
    // One of them is not decoded.
    for (std::size_t i = 0; i < blobs.size(); ++i) {
      if (i == 2) {
        linears.push_back(make({.cublas = false}, i));
      } else {
        linears.push_back(make({.overrides = decoded}, i));
      }
      ys.emplace_back(kMostTokens * kShape.rows);
    }
  }
  void TearDown() override {
    if (main != nullptr) cudaStreamDestroy(main);
    if (side != nullptr) cudaStreamDestroy(side);
    LinearOnDevice::TearDown();
  }

  [[nodiscard]] LinearArguments arguments_of(std::size_t i) const {
    LinearArguments a = arguments(kTokensHere);
    a.y = ys[i].data();
    a.scratch = nullptr;
    return a;
  }

  Result<void> run_chain(DecodeAhead& ahead, int repeats) {
    for (int repeat = 0; repeat < repeats; ++repeat) {
      for (std::size_t i = 0; i < linears.size(); ++i) {
        const bool last = i + 1 == linears.size() && repeat + 1 == repeats;
        const std::size_t next = (i + 1) % linears.size();
        const auto done = ahead.run(linears[i], arguments_of(i), last ? nullptr : &linears[next],
                                    last ? LinearArguments{} : arguments_of(next), main);
        if (!done) return done;
      }
    }
    return {};
  }

  void expect_results(const char* what) {
    for (std::size_t i = 0; i < linears.size(); ++i) {
      auto found = ys[i].download();
      found.resize(kTokensHere * kShape.rows);
      EXPECT_EQ(found, run(linears[i], kTokensHere)) << what << ", weight " << i;
    }
  }

  void poison() {
    for (const auto& result : ys) EXPECT_CUDA(cudaMemset(result.data(), 0xff, result.size_bytes()));
    EXPECT_CUDA(cudaDeviceSynchronize());
  }

  static constexpr std::uint32_t kTokensHere = 2500;
  cudaStream_t main = nullptr, side = nullptr;
  std::vector<Linear> linears;
  std::vector<DeviceArray<std::uint16_t>> ys;
};

TEST_F(DecodeAheadOnDevice, GivesTheBitsOfLinear) {
  auto ahead = DecodeAhead::create({scratch.data(), other_scratch.data()}, side);
  ASSERT_TRUE(ahead) << ahead.error().message;
  poison();
  const auto done = run_chain(*ahead, 5);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_CUDA(cudaDeviceSynchronize());
  expect_results("enqueued");
}

TEST_F(DecodeAheadOnDevice, InOneGraph) {
  auto ahead = DecodeAhead::create({scratch.data(), other_scratch.data()}, side);
  ASSERT_TRUE(ahead) << ahead.error().message;
  ASSERT_TRUE(run_chain(*ahead, 1));
  EXPECT_CUDA(cudaDeviceSynchronize());
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  ASSERT_CUDA(cudaStreamBeginCapture(main, cudaStreamCaptureModeGlobal));
  const auto captured = run_chain(*ahead, 2);
  EXPECT_TRUE(captured) << captured.error().message;
  ASSERT_CUDA(cudaStreamEndCapture(main, &graph));
  ASSERT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  for (int replay = 0; replay < 3; ++replay) {
    poison();
    EXPECT_CUDA(cudaGraphLaunch(executable, main));
    EXPECT_CUDA(cudaStreamSynchronize(main));
    expect_results("replayed");
  }
  EXPECT_CUDA(cudaGraphExecDestroy(executable));
  EXPECT_CUDA(cudaGraphDestroy(graph));
}

TEST_F(DecodeAheadOnDevice, RefusesUnsoundArguments) {
  EXPECT_FALSE(DecodeAhead::create({scratch.data(), nullptr}, side));
  EXPECT_FALSE(DecodeAhead::create({scratch.data(), scratch.data()}, side));
  EXPECT_FALSE(DecodeAhead::create({scratch.data(), other_scratch.data() + 8}, side));
  auto ahead = DecodeAhead::create({scratch.data(), other_scratch.data()}, side);
  ASSERT_TRUE(ahead);
  ASSERT_TRUE(ahead->run(linears[0], arguments_of(0), &linears[1], arguments_of(1), main));
  const auto refused = ahead->run(linears[3], arguments_of(3), nullptr, {}, main);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("announced"), std::string::npos) << refused.error().message;
  EXPECT_CUDA(cudaDeviceSynchronize());
}

// ---- tuning ---------------------------------------------------------------------------------------------------------

TEST_F(LinearOnDevice, ATunedPlanIsFollowed) {
  TuneOptions options;
  options.weights = {{1024, 1024, BlobLayout::kTiled, ExceptionClass::kUsual},
                     {512, 2048, BlobLayout::kTiled, ExceptionClass::kMany}};
  options.tokens = {1, 16, 64, 256, 4096};
  options.seconds = 10;
  const auto report = tune_on_device(options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_GT(report->candidates_timed, 50U);
  ASSERT_EQ(report->plan.weights.size(), 4U);
  for (const PlanWeight& entry : report->plan.weights) {
    for (const PlanCell& cell : entry.cells) {
      EXPECT_FALSE(cell.isolated.empty());
      EXPECT_FALSE(cell.dependent.empty());
      EXPECT_GT(cell.isolated.front().us, 0.5) << describe(entry.weight) << cell.tokens;
      EXPECT_EQ(cell.cublas_us > 0, has_cublas);
    }
  }
  const MatrixShape shape{1, 1024, 1024};
  const auto tensor = make_tensor(shape, Filling::kTrained, 7);
  const auto blob = UploadedBlob::encoded(tensor, shape);
  const auto linear = Linear::create(*blob.device, {.plan = &report->plan});
  ASSERT_TRUE(linear) << linear.error().message;
  EXPECT_TRUE(linear->notes().empty());
  for (const std::uint32_t tokens : {1U, 16U, 64U, 128U, 4096U}) {
    EXPECT_EQ(linear->choice(tokens).source, ChoiceSource::kPlan) << tokens;
  }
  // Again with itself as the incumbent.
  options.incumbent = &report->plan;
  options.tokens = {16};
  const auto again = tune_on_device(options);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(again->warnings.empty());
}

// ---- the C interface ------------------------------------------------------------------------------------------------

TEST_F(LinearOnDevice, CInterfaceDoesTheSame) {
  unweight_device_blob* blob = nullptr;
  ASSERT_EQ(unweight_device_blob_create(blobs[0].bytes.data(), blobs[0].bytes.size(), blobs[0].memory.data(), &blob),
            UNWEIGHT_OK)
      << unweight_last_error_message();
  unweight_linear_options options{};
  options.struct_size = sizeof options;
  unweight_matmul_config config{};
  config.struct_size = sizeof config;
  config.strips = 1;
  config.stages = 3;
  const std::uint32_t override_tokens = 5;
  options.overrides = &config;
  options.override_tokens = &override_tokens;
  options.override_count = 1;
  unweight_linear* linear = nullptr;
  ASSERT_EQ(unweight_linear_create(blob, &options, &linear), UNWEIGHT_OK) << unweight_last_error_message();
  char text[200];
  ASSERT_EQ(unweight_linear_describe(linear, 7, text, sizeof text), UNWEIGHT_OK);
  EXPECT_EQ(std::string(text), "fused, strips 1, stages 3 (override, 8 tokens)");
  ASSERT_EQ(unweight_linear_describe(linear, 7, text, 6), UNWEIGHT_OK);
  EXPECT_EQ(std::string(text), "fused");
  ASSERT_EQ(unweight_linear_notes(linear, text, sizeof text), UNWEIGHT_OK);
  EXPECT_EQ(std::string(text), "");
  std::size_t workspace_bytes = 0, scratch_bytes = 0;
  ASSERT_EQ(unweight_linear_memory(linear, kMostTokens, &workspace_bytes, &scratch_bytes), UNWEIGHT_OK);
  const Linear same = make({});
  EXPECT_EQ(workspace_bytes, same.workspace_bytes());
  EXPECT_EQ(scratch_bytes, same.scratch_bytes(kMostTokens));
  unweight_matmul_arguments a{};
  a.struct_size = sizeof a;
  a.x = x.data();
  a.x_stride = kShape.cols;
  a.y = y.data();
  a.y_stride = kShape.rows;
  a.workspace = workspace.data();
  for (const std::uint32_t tokens : {7U, 100U, 2100U}) {
    a.tokens = tokens;
    const auto found = result_of(tokens, 0, [&]() -> Result<void> {
      EXPECT_EQ(unweight_linear_run(linear, &a, scratch.data(), nullptr), UNWEIGHT_OK) << unweight_last_error_message();
      return {};
    });
    EXPECT_EQ(found, tokens == 7 ? fused(weight(), 7, {.strips = 1, .stages = 3}) : run(same, tokens));
  }
  unweight_linear* other = nullptr;
  EXPECT_EQ(unweight_linear_for_weight(linear, blob, &other), UNWEIGHT_OK);
  unweight_linear_destroy(other);
  config.strips = 3;
  EXPECT_EQ(unweight_linear_create(blob, &options, &other), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(other, nullptr);
  EXPECT_NE(std::string(unweight_last_error_message()).find("override for 5 tokens"), std::string::npos);
  options.no_scratch = 2;
  options.override_count = 0;
  EXPECT_EQ(unweight_linear_create(blob, &options, &other), UNWEIGHT_INVALID_ARGUMENT);
  const DeviceArray<std::byte> raw_memory(encode_bound(kShape).value());
  unweight_device_blob* raw = nullptr;
  ASSERT_EQ(unweight_device_decode_to_raw(blob, raw_memory.data(), nullptr, &raw), UNWEIGHT_OK)
      << unweight_last_error_message();
  unweight_device_blob_destroy(raw);
  unweight_linear_destroy(linear);
  unweight_device_blob_destroy(blob);
}

TEST_F(LinearOnDevice, ChoosesWithoutRunningWhatLinearFollows) {
  unweight_device_blob* blob = nullptr;
  ASSERT_EQ(unweight_device_blob_create(blobs[0].bytes.data(), blobs[0].bytes.size(), blobs[0].memory.data(), &blob),
            UNWEIGHT_OK);
  unweight_weight_class weight_class{};
  weight_class.struct_size = sizeof weight_class;
  ASSERT_EQ(unweight_device_blob_class(blob, &weight_class), UNWEIGHT_OK) << unweight_last_error_message();
  EXPECT_EQ(weight_class.rows, kTiled.rows);
  EXPECT_EQ(weight_class.cols, kTiled.cols);
  EXPECT_EQ(weight_class.layout, static_cast<std::uint32_t>(UNWEIGHT_LAYOUT_TILED));
  EXPECT_EQ(weight_class.exceptions, static_cast<std::uint32_t>(kTiled.exceptions));
  unweight_device_blob_destroy(blob);
  const unweight_plan plan{
      plan_for(kTiled, {{8, {Pipeline::kFused, {.strips = 1, .stages = 3}, {}}}, {64, {Pipeline::kDecoded, {}, {}}}})};
  for (const bool dependent : {false, true}) {
    const Linear linear = make({.plan = &plan.plan, .dependent_launch = dependent, .cublas = has_cublas});
    unweight_linear_options options{};
    options.struct_size = sizeof options;
    options.plan = &plan;
    options.dependent_launch = dependent ? 1 : 0;
    options.no_cublas = has_cublas ? 0 : 1;
    for (std::uint32_t bucket = 0; bucket < kTokenBuckets; ++bucket) {
      const std::uint32_t tokens = bucket_tokens(bucket);
      unweight_matmul_config config{};
      config.struct_size = sizeof config;
      unweight_choice choice{};
      choice.struct_size = sizeof choice;
      choice.config = &config;
      ASSERT_EQ(unweight_choose(&weight_class, nullptr, &options, nullptr, tokens, &choice), UNWEIGHT_OK)
          << unweight_last_error_message();
      const ResolvedChoice& followed = linear.choice(tokens);
      EXPECT_EQ(choice.pipeline, static_cast<std::uint32_t>(followed.choice.pipeline)) << tokens;
      EXPECT_EQ(choice.source, static_cast<std::uint32_t>(followed.source)) << tokens;
      EXPECT_EQ(choice.cell_tokens, followed.cell_tokens) << tokens;
      if (followed.choice.pipeline != Pipeline::kFused) continue;
      EXPECT_EQ(config.strips, followed.choice.config.strips) << tokens;
      EXPECT_EQ(config.stages, followed.choice.config.stages) << tokens;
      EXPECT_EQ(config.split != 0, followed.choice.config.split) << tokens;
      EXPECT_EQ(config.dependent_launch != 0, followed.choice.config.dependent_launch) << tokens;
      EXPECT_EQ(config.warpgroup != 0, followed.choice.config.warpgroup) << tokens;
    }
  }
}

TEST(LinearCInterface, RefusesNull) {
  unweight_linear* linear = nullptr;
  std::size_t bytes = 0;
  char text[10];
  EXPECT_EQ(unweight_linear_create(nullptr, nullptr, &linear), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_create(nullptr, nullptr, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_for_weight(nullptr, nullptr, &linear), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_memory(nullptr, 1, &bytes, &bytes), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_describe(nullptr, 1, text, sizeof text), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_notes(nullptr, text, sizeof text), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_linear_run(nullptr, nullptr, nullptr, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_device_blob* raw = nullptr;
  EXPECT_EQ(unweight_device_decode_to_raw(nullptr, nullptr, nullptr, &raw), UNWEIGHT_INVALID_ARGUMENT);
  unweight_linear_destroy(nullptr);
}

}  // namespace
}  // namespace unweight::test
