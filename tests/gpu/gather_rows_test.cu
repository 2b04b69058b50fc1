// SPDX-License-Identifier: Apache-2.0
//
// gather_rows() and DeviceBlob::open() on a device, bit for bit.
#include "gpu/device_fixture.cuh"
#include "support/tensors.hpp"
#include <cstdint>
#include <string>
#include <unweight/unweight_cuda.h>
#include <vector>

namespace unweight::test {
namespace {

class GatherRowsOnDevice : public DeviceTest {};
class OpenOnDevice : public DeviceTest {};

std::vector<std::int64_t> random_rows(std::uint64_t rows, std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::int64_t> numbers(count);
  for (std::int64_t& number : numbers) number = static_cast<std::int64_t>(random.below(rows));
  return numbers;
}

/// What gather_rows() must give; numbers outside of the tensor give NaN.
std::vector<std::uint16_t> rows_of(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                   std::span<const std::int64_t> numbers) {
  std::vector<std::uint16_t> expected;
  for (const std::int64_t number : numbers) {
    if (static_cast<std::uint64_t>(number) >= shape.batch * shape.rows) {
      expected.insert(expected.end(), shape.cols, 0x7fff);
      continue;
    }
    const auto row = values.begin() + number * static_cast<std::int64_t>(shape.cols);
    expected.insert(expected.end(), row, row + static_cast<std::int64_t>(shape.cols));
  }
  return expected;
}

void expect_gathers(const UploadedBlob& blob, std::span<const std::uint16_t> values,
                    std::span<const std::int64_t> numbers, std::uint64_t row_stride, std::uint64_t offset,
                    const std::string& what) {
  ASSERT_TRUE(blob.device);
  const MatrixShape& shape = blob.device->shape();
  const DeviceArray<std::int64_t> device_numbers(numbers);
  GuardedOutput out({1, numbers.size(), shape.cols}, row_stride, offset);
  const auto expected = rows_of(values, shape, numbers);
  for (int run = 0; run < 2; ++run) {
    out.poison();
    const auto done =
        gather_rows(*blob.device, {device_numbers.data(), numbers.size()}, out.data(), row_stride, nullptr);
    ASSERT_TRUE(done) << what << ": " << done.error().message;
    out.check(expected, what);
  }
}

TEST_F(GatherRowsOnDevice, EveryFilling) {
  for (const MatrixShape& shape : {MatrixShape{1, 1, 1}, MatrixShape{1, 47, 504}, MatrixShape{3, 30, 600},
                                   MatrixShape{2, 48, 711}, MatrixShape{1, 64, 1024}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const std::uint64_t rows = shape.batch * shape.rows;
      auto numbers = random_rows(rows, 77, 3);
      numbers.insert(numbers.end(), {-1, static_cast<std::int64_t>(rows), 0, static_cast<std::int64_t>(rows) - 1});
      for (const auto& bytes : {encode(values, shape).value(), raw_blob(values, shape)}) {
        const UploadedBlob blob(bytes);
        expect_gathers(blob, values, numbers, shape.cols, 0, name_of(filling));
        expect_gathers(blob, values, numbers, shape.cols + 5, 1, name_of(filling) + ", misaligned");
      }
    }
  }
}

TEST_F(GatherRowsOnDevice, EveryValueAndAllRows) {
  const RichTensor tensor;
  const auto blob = UploadedBlob::encoded(tensor.values, tensor.shape);
  std::vector<std::int64_t> numbers(tensor.shape.rows);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i);
  expect_gathers(blob, tensor.values, numbers, tensor.shape.cols, 0, "rich");
}

TEST_F(GatherRowsOnDevice, RefusesBadArguments) {
  const MatrixShape shape{1, 64, 128};
  const auto values = make_tensor(shape, Filling::kTrained, 1);
  const auto blob = UploadedBlob::encoded(values, shape);
  const DeviceArray<std::int64_t> numbers(8);
  const DeviceArray<std::uint16_t> out(8 * 128);
  const std::span<const std::int64_t> eight{numbers.data(), 8};
  EXPECT_EQ(gather_rows(*blob.device, eight, out.data(), 127, nullptr).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(gather_rows(*blob.device, eight, nullptr, 128, nullptr).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(gather_rows(*blob.device, eight, out.data(), std::uint64_t{1} << 47, nullptr).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_TRUE(gather_rows(*blob.device, {}, nullptr, 128, nullptr));
}

TEST_F(OpenOnDevice, IsWhatCreateMakes) {
  for (const MatrixShape& shape : {MatrixShape{1, 1, 1}, MatrixShape{3, 30, 600}, MatrixShape{1, 1040, 1024}}) {
    for (const Filling filling : {Filling::kTrained, Filling::kUniformBits, Filling::kEscapes15}) {
      const auto values = make_tensor(shape, filling, 2);
      const auto blob = UploadedBlob::encoded(values, shape);
      const auto opened = DeviceBlob::open({blob.memory.data(), blob.bytes.size()}, nullptr);
      ASSERT_TRUE(opened) << opened.error().message;
      EXPECT_EQ(opened->shape(), shape);
      EXPECT_EQ(opened->layout(), blob.device->layout());
      EXPECT_EQ(opened->size_bytes(), blob.device->size_bytes());
      const DeviceArray<std::uint16_t> out(values.size());
      ASSERT_TRUE(decode(*opened, out.data(), shape.cols, nullptr));
      EXPECT_EQ(out.download(), values);
    }
  }
}

TEST_F(OpenOnDevice, RefusesDamage) {
  const MatrixShape shape{1, 128, 512};
  const auto values = make_tensor(shape, Filling::kTrained, 2);
  const auto bytes = encode(values, shape).value();
  const auto code_of = [](std::vector<std::byte> damaged, std::size_t size) {
    const DeviceArray<std::byte> memory{std::span<const std::byte>(damaged)};
    const auto opened = DeviceBlob::open({memory.data(), size}, nullptr);
    return opened ? ErrorCode::kOk : opened.error().code;
  };
  EXPECT_EQ(code_of(bytes, bytes.size()), ErrorCode::kOk);
  EXPECT_EQ(code_of(bytes, 100), ErrorCode::kTruncated);
  EXPECT_EQ(code_of(bytes, bytes.size() - 128), ErrorCode::kTruncated);
  for (std::size_t at = 0; at < 256; at += 5) {
    auto damaged = bytes;
    damaged[at] ^= std::byte{0x10};
    EXPECT_NE(code_of(damaged, damaged.size()), ErrorCode::kOk) << "header byte " << at;
  }
}

/// Through the C interface too.
TEST_F(OpenOnDevice, CInterface) {
  const MatrixShape shape{1, 96, 256};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 2);
  const auto host = encode(values, shape).value();
  const DeviceArray<std::byte> memory{std::span<const std::byte>(host)};
  unweight_device_blob* blob = nullptr;
  ASSERT_EQ(unweight_device_blob_open(memory.data(), host.size(), nullptr, &blob), UNWEIGHT_OK)
      << unweight_last_error_message();
  unweight_matrix_shape found{};
  ASSERT_EQ(unweight_device_blob_shape(blob, &found), UNWEIGHT_OK);
  EXPECT_EQ((MatrixShape{found.batch, found.rows, found.cols}), shape);
  EXPECT_EQ(unweight_device_blob_shape(blob, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  const auto numbers = random_rows(shape.rows, 9, 1);
  const DeviceArray<std::int64_t> device_numbers{std::span<const std::int64_t>(numbers)};
  const DeviceArray<std::uint16_t> out(numbers.size() * shape.cols);
  ASSERT_EQ(unweight_device_gather_rows(blob, device_numbers.data(), numbers.size(), out.data(), shape.cols, nullptr),
            UNWEIGHT_OK);
  EXPECT_EQ(out.download(), rows_of(values, shape, numbers));
  EXPECT_EQ(unweight_device_gather_rows(blob, nullptr, 3, out.data(), shape.cols, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_device_blob_destroy(blob);
}

}  // namespace
}  // namespace unweight::test
