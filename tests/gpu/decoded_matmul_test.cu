// SPDX-License-Identifier: Apache-2.0
//
// DecodedMatmul on a device that has cuBLASLt: the same bits as cuBLASLt from the original weights.
#include "gpu/device_fixture.cuh"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <cstdint>
#include <optional>
#include <string>
#include <unweight/cublas.hpp>
#include <vector>

namespace unweight::test {
namespace {

class DecodedMatmulOnDevice : public DeviceTest {
 protected:
  static constexpr MatrixShape kShape{1, 200, 328};
  static constexpr std::uint32_t kTokens = 96;

  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    values = make_tensor(kShape, Filling::kEscapes1p5, 1);
    blob.emplace(UploadedBlob::encoded(values, kShape));
    x_values.resize(kTokens * kShape.cols);
    fill_activations(x_values.data(), kTokens, kShape.cols, kShape.cols, 2);
    x = DeviceArray<std::uint16_t>(std::span<const std::uint16_t>(x_values));
    dense = DeviceArray<std::uint16_t>(std::span<const std::uint16_t>(values));
    scratch = DeviceArray<std::uint16_t>(values.size());
    workspace = DeviceArray<std::byte>(DecodedMatmul::kWorkspaceBytes);
    y = DeviceArray<std::uint16_t>(kTokens * kShape.rows);
    arguments = {.x = x.data(), .x_stride = kShape.cols, .y = y.data(), .y_stride = kShape.rows, .tokens = kTokens};
    const auto first = DecodedMatmul::create(*blob->device, arguments);
    if (!first && first.error().message.find("libcublasLt") != std::string::npos) GTEST_SKIP() << first.error().message;
    ASSERT_TRUE(first) << first.error().message;
  }

  /// Y by `enqueue`, of which every value must be written.
  template <class Enqueue>
  std::vector<std::uint16_t> run(Enqueue enqueue) {
    EXPECT_CUDA(cudaMemset(y.data(), 0xff, y.size_bytes()));
    EXPECT_CUDA(cudaMemset(scratch.data(), 0xff, scratch.size_bytes()));
    const Result<void> done = enqueue();
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_CUDA(cudaDeviceSynchronize());
    return y.download();
  }

  std::vector<std::uint16_t> values, x_values;
  std::optional<UploadedBlob> blob;
  DeviceArray<std::uint16_t> x, y, dense, scratch;
  DeviceArray<std::byte> workspace;
  MatmulArguments arguments;
};

TEST_F(DecodedMatmulOnDevice, EveryAlgorithmGivesTheBitsOfOriginalWeights) {
  const std::vector<std::uint16_t> bias_values(kShape.rows, 0x3f80);
  const DeviceArray<std::uint16_t> bias{std::span<const std::uint16_t>(bias_values)};
  for (const bool biased : {false, true}) {
    arguments.bias = biased ? bias.data() : nullptr;
    std::uint32_t algorithms = 1;
    for (std::uint32_t number = 0; number < algorithms; ++number) {
      const auto multiplication = DecodedMatmul::create(*blob->device, arguments, number);
      ASSERT_TRUE(multiplication) << multiplication.error().message;
      algorithms = multiplication->algorithms();
      const auto original =
          run([&] { return multiplication->multiply(dense.data(), arguments, workspace.data(), nullptr); });
      const auto decoded =
          run([&] { return multiplication->run(*blob->device, arguments, scratch.data(), workspace.data(), nullptr); });
      EXPECT_EQ(decoded, original) << "algorithm " << number;
      EXPECT_EQ(scratch.download(), values) << "algorithm " << number;
      if (!biased) {
        EXPECT_TRUE(near_float64(decoded, x_values.data(), kShape.cols, values, kShape, kTokens))
            << "algorithm " << number;
      }
    }
  }
}

TEST_F(DecodedMatmulOnDevice, InAGraph) {
  const auto multiplication = DecodedMatmul::create(*blob->device, arguments);
  ASSERT_TRUE(multiplication);
  const auto enqueue = [&](cudaStream_t stream) {
    return multiplication->run(*blob->device, arguments, scratch.data(), workspace.data(), stream);
  };
  const auto expected = run([&] { return enqueue(nullptr); });
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  ASSERT_CUDA(cudaStreamCreate(&stream));
  ASSERT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const auto captured = enqueue(stream);
  EXPECT_TRUE(captured) << captured.error().message;
  ASSERT_CUDA(cudaStreamEndCapture(stream, &graph));
  ASSERT_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  EXPECT_EQ(run([&]() -> Result<void> {
              EXPECT_CUDA(cudaDeviceSynchronize());
              EXPECT_CUDA(cudaGraphLaunch(executable, stream));
              return {};
            }),
            expected);
  EXPECT_CUDA(cudaGraphExecDestroy(executable));
  EXPECT_CUDA(cudaGraphDestroy(graph));
  EXPECT_CUDA(cudaStreamDestroy(stream));
}

TEST_F(DecodedMatmulOnDevice, RefusesUnsoundArguments) {
  const auto multiplication = DecodedMatmul::create(*blob->device, arguments);
  ASSERT_TRUE(multiplication);
  const auto expect_refused = [](const auto& result, const std::string& part) {
    ASSERT_FALSE(result) << part;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  const auto create = [&](auto change) {
    MatmulArguments changed = arguments;
    change(changed);
    return DecodedMatmul::create(*blob->device, changed);
  };
  const auto multiply = [&](auto change, std::size_t values_offset = 0) {
    MatmulArguments changed = arguments;
    change(changed);
    return multiplication->multiply(dense.data() + values_offset, changed, workspace.data(), nullptr);
  };
  const auto nothing = [](auto&) {};
  expect_refused(create([](auto& a) { a.tokens = 0; }), "tokens=0");
  expect_refused(create([](auto& a) { a.x_stride = 327; }), "x_stride=327");
  expect_refused(create([](auto& a) { a.y_stride = 199; }), "y_stride=199");
  expect_refused(DecodedMatmul::create(*blob->device, arguments, 1000), "algorithm=1000");
  expect_refused(DecodedMatmul::create(*blob->device, arguments, 0, 10000), "multiprocessors=10000");
  expect_refused(multiply([](auto& a) { a.tokens = 95; }), "tokens=95");
  expect_refused(multiply([](auto& a) { a.x = nullptr; }), "x or y is null");
  expect_refused(multiply([](auto& a) { ++a.x; }), "aligned to fewer bytes");
  expect_refused(multiply([&](auto& a) { a.bias = x.data(); }), "with a bias");
  expect_refused(multiply(nothing, 1), "values are null or not aligned");
  expect_refused(multiplication->multiply(dense.data(), arguments, nullptr, nullptr), "the workspace is null");
  const MatrixShape other{1, 64, 64};
  const auto small = UploadedBlob::encoded(make_tensor(other, Filling::kTrained, 1), other);
  expect_refused(multiplication->run(*small.device, arguments, scratch.data(), workspace.data(), nullptr), "64 x 64");
}

}  // namespace
}  // namespace unweight::test
