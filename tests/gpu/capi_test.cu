// SPDX-License-Identifier: Apache-2.0
//
// The C interface of the CUDA part: what it refuses, also without a device, and that it does what the C++ interface
// does.
#include "gpu/device_fixture.cuh"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <cstdint>
#include <string>
#include <unistd.h>
#include <unweight/unweight_cuda.h>
#include <vector>

namespace unweight::test {
namespace {

void expect_refused(unweight_status status, const std::string& part) {
  EXPECT_EQ(status, UNWEIGHT_INVALID_ARGUMENT) << part;
  EXPECT_NE(std::string(unweight_last_error_message()).find(part), std::string::npos) << unweight_last_error_message();
}

TEST(CudaCInterface, RefusesNullAndUnknownSizes) {
  const std::vector<std::byte> blob = encode(std::vector<std::uint16_t>(64 * 64, 0x3f80), {1, 64, 64}).value();
  unweight_device_blob* device_blob = nullptr;
  expect_refused(unweight_device_blob_create(blob.data(), blob.size(), blob.data(), nullptr), "device_blob is NULL");
  expect_refused(unweight_device_blob_create(nullptr, 5, blob.data(), &device_blob), "blob is NULL");
  EXPECT_EQ(unweight_device_blob_create(blob.data(), 100, blob.data(), &device_blob), UNWEIGHT_TRUNCATED);
  EXPECT_EQ(device_blob, nullptr);
  unweight_device_blob_destroy(nullptr);

  std::uint16_t value = 0;
  unweight_matmul_config config{};
  unweight_matmul_arguments arguments{};
  std::size_t bytes = 7;
  expect_refused(unweight_device_decode(nullptr, &value, 1, nullptr), "device_blob is NULL");
  expect_refused(unweight_device_prefetch_l2(nullptr, 0, 1, nullptr), "device_blob is NULL");
  expect_refused(unweight_matmul_can_implement(nullptr, 1, &config), "device_blob is NULL");
  expect_refused(unweight_matmul_choose_config(nullptr, 1, &config), "device_blob is NULL");
  expect_refused(unweight_matmul_workspace_bytes(nullptr, nullptr), "workspace_bytes is NULL");
  expect_refused(unweight_matmul_workspace_bytes(nullptr, &bytes), "device_blob is NULL");
  EXPECT_EQ(bytes, 0U);
  expect_refused(unweight_matmul(nullptr, &arguments, &config, nullptr), "device_blob is NULL");
}

class CudaCInterfaceOnDevice : public DeviceTest {};

TEST_F(CudaCInterfaceOnDevice, DoesWhatTheCppInterfaceDoes) {
  const MatrixShape shape{2, 300, 520};
  constexpr std::uint32_t kTokens = 5;
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 3);
  const auto host = encode(values, shape).value();
  const DeviceArray<std::byte> memory{std::span<const std::byte>(host)};
  unweight_device_blob* blob = nullptr;
  ASSERT_EQ(unweight_device_blob_create(host.data(), host.size(), memory.data(), &blob), UNWEIGHT_OK)
      << unweight_last_error_message();
  const DeviceBlob same = DeviceBlob::create(host, memory.data()).value();

  const DeviceArray<std::uint16_t> decoded(values.size());
  EXPECT_EQ(unweight_device_decode(blob, decoded.data(), shape.cols, nullptr), UNWEIGHT_OK);
  EXPECT_EQ(decoded.download(), values);
  EXPECT_EQ(unweight_device_prefetch_l2(blob, 0, UINT64_MAX, nullptr), UNWEIGHT_OK);

  unweight_matmul_config config{};
  config.struct_size = sizeof config;
  ASSERT_EQ(unweight_matmul_choose_config(blob, kTokens, &config), UNWEIGHT_OK) << unweight_last_error_message();
  EXPECT_EQ(config.struct_size, sizeof config);
  EXPECT_EQ(unweight_matmul_can_implement(blob, kTokens, &config), UNWEIGHT_OK);
  std::size_t workspace_bytes = 0;
  ASSERT_EQ(unweight_matmul_workspace_bytes(blob, &workspace_bytes), UNWEIGHT_OK);
  ASSERT_GT(workspace_bytes, 0U);
  const DeviceArray<std::byte> workspace(workspace_bytes);
  ASSERT_CUDA(cudaMemset(workspace.data(), 0, workspace_bytes));

  std::vector<std::uint16_t> x_values(kTokens * shape.cols);
  fill_activations(x_values.data(), kTokens, shape.cols, shape.cols, 1);
  const DeviceArray<std::uint16_t> x{std::span<const std::uint16_t>(x_values)};
  const DeviceArray<std::uint16_t> y(kTokens * shape.rows), expected(kTokens * shape.rows);
  unweight_matmul_arguments arguments{};
  arguments.struct_size = sizeof arguments;
  arguments.x = x.data();
  arguments.x_stride = shape.cols;
  arguments.y = y.data();
  arguments.y_stride = shape.rows;
  arguments.matrix = 1;
  arguments.workspace = workspace.data();
  arguments.tokens = kTokens;
  for (const std::uint32_t split : {0U, 1U}) {
    config.split = split;
    ASSERT_EQ(unweight_matmul(blob, &arguments, &config, nullptr), UNWEIGHT_OK) << unweight_last_error_message();
    const auto done = matmul(same,
                             {.x = x.data(),
                              .x_stride = shape.cols,
                              .y = expected.data(),
                              .y_stride = shape.rows,
                              .tokens = kTokens,
                              .matrix = 1,
                              .workspace = workspace.data()},
                             {.strips = config.strips, .stages = config.stages, .split = split == 1}, nullptr);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(y.download(), expected.download());
  }

  config.split = 2;
  expect_refused(unweight_matmul(blob, &arguments, &config, nullptr), "config->split = 2");
  config.split = 0;
  config.strips = 3;
  expect_refused(unweight_matmul_can_implement(blob, kTokens, &config), "strips=3");
  config.strips = 1;
  config.struct_size = 8;
  expect_refused(unweight_matmul_can_implement(blob, kTokens, &config), "config->struct_size = 8");
  expect_refused(unweight_matmul_choose_config(blob, kTokens, &config), "config->struct_size = 8");
  config.struct_size = sizeof config;
  config.reserved = 1;
  expect_refused(unweight_matmul_can_implement(blob, kTokens, &config), "config->reserved = 1");
  config.reserved = 0;
  expect_refused(unweight_matmul_choose_config(blob, 65537, &config), "tokens=65537");
  expect_refused(unweight_matmul(blob, nullptr, &config, nullptr), "arguments is NULL");
  arguments.struct_size = 0;
  expect_refused(unweight_matmul(blob, &arguments, &config, nullptr), "arguments->struct_size = 0");
  unweight_device_blob_destroy(blob);
}

TEST_F(CudaCInterfaceOnDevice, CapturesAndWhatIsLentToTheirGraphs) {
  cudaStream_t stream = nullptr;
  ASSERT_CUDA(cudaStreamCreate(&stream));
  std::uint64_t capture = 7;
  std::uint32_t released[2] = {7, 7};
  ASSERT_EQ(unweight_stream_capture(stream, &capture), UNWEIGHT_OK) << unweight_last_error_message();
  EXPECT_EQ(capture, 0U);
  expect_refused(unweight_stream_capture(stream, nullptr), "capture is NULL");
  expect_refused(unweight_stream_capture_lease(stream, nullptr), "released is NULL");
  expect_refused(unweight_stream_capture_lease(stream, released), "not being captured");
  const DeviceArray<std::byte> memory(4096);
  cudaGraphExec_t runnable[2] = {};
  std::uint64_t captures[2] = {};
  for (int i = 0; i < 2; ++i) {
    cudaGraph_t graph = nullptr;
    ASSERT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    ASSERT_EQ(unweight_stream_capture(stream, &captures[i]), UNWEIGHT_OK) << unweight_last_error_message();
    EXPECT_NE(captures[i], 0U);
    ASSERT_EQ(unweight_stream_capture_lease(stream, &released[i]), UNWEIGHT_OK) << unweight_last_error_message();
    ASSERT_CUDA(cudaMemsetAsync(memory.data(), i, memory.size(), stream));
    ASSERT_CUDA(cudaStreamEndCapture(stream, &graph));
    ASSERT_CUDA(cudaGraphInstantiate(&runnable[i], graph, 0));
    ASSERT_CUDA(cudaGraphDestroy(graph));  // what was instantiated from it still holds what was lent
    ASSERT_CUDA(cudaGraphLaunch(runnable[i], stream));
  }
  EXPECT_NE(captures[0], captures[1]);
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  const auto wait_for = [](const std::uint32_t& flag) {
    for (int i = 0; i < 1000 && __atomic_load_n(&flag, __ATOMIC_ACQUIRE) == 0; ++i) usleep(1000);
    return __atomic_load_n(&flag, __ATOMIC_ACQUIRE);
  };
  EXPECT_EQ(__atomic_load_n(&released[0], __ATOMIC_ACQUIRE), 0U);
  ASSERT_CUDA(cudaGraphExecDestroy(runnable[0]));
  EXPECT_EQ(wait_for(released[0]), 1U);
  EXPECT_EQ(__atomic_load_n(&released[1], __ATOMIC_ACQUIRE), 0U);
  ASSERT_CUDA(cudaGraphExecDestroy(runnable[1]));
  EXPECT_EQ(wait_for(released[1]), 1U);
  ASSERT_CUDA(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace unweight::test
