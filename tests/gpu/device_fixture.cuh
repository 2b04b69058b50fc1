// SPDX-License-Identifier: Apache-2.0
//
// What tests on a device share: a fixture that skips without one, device memory, blobs on the device, and outputs with
// poison and guard bands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <span>
#include <string>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <utility>
#include <vector>

namespace unweight::test {

#define ASSERT_CUDA(call)                                                               \
  do {                                                                                  \
    const cudaError_t assert_cuda_error = (call);                                       \
    ASSERT_EQ(assert_cuda_error, cudaSuccess) << cudaGetErrorString(assert_cuda_error); \
  } while (false)

#define EXPECT_CUDA(call)                                                               \
  do {                                                                                  \
    const cudaError_t expect_cuda_error = (call);                                       \
    EXPECT_EQ(expect_cuda_error, cudaSuccess) << cudaGetErrorString(expect_cuda_error); \
  } while (false)

/// Skips every test of the suite where the kernels cannot run.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no device: " << cudaGetErrorString(error);
    }
    int major = 0, minor = 0;
    ASSERT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    ASSERT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    if (major != 9 || minor != 0) {
      GTEST_SKIP() << "device of compute capability " << major << "." << minor << "; the kernels are for 9.0";
    }
  }

  /// No test leaves an error behind.
  void TearDown() override {
    if (IsSkipped()) return;
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_CUDA(cudaGetLastError());
  }
};

/// Device memory of `size` elements, freed at the end of its life.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t size) : size_(size) {
    EXPECT_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(1, size) * sizeof(T)));
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) {
    EXPECT_CUDA(cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice));
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t size_bytes() const { return size_ * sizeof(T); }

  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> host(size_);
    EXPECT_CUDA(cudaMemcpy(host.data(), data_, size_bytes(), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A blob's bytes and their copy on the device. The copy is exactly as long as the blob, so that memcheck sees any read
/// beyond it.
struct UploadedBlob {
  explicit UploadedBlob(std::vector<std::byte> bytes_in)
      : bytes(std::move(bytes_in)), memory(bytes), device(DeviceBlob::create(bytes, memory.data())) {
    EXPECT_TRUE(device) << device.error().message;
  }
  static UploadedBlob encoded(std::span<const std::uint16_t> values, const MatrixShape& shape) {
    auto bytes = encode(values, shape, {.threads = 0});
    EXPECT_TRUE(bytes) << bytes.error().message;
    return UploadedBlob(std::move(*bytes));
  }

  std::vector<std::byte> bytes;
  DeviceArray<std::byte> memory;
  Result<DeviceBlob> device;
};

/// Room for a tensor with any row stride, at any offset from an aligned address, between guard bands. poison() fills
/// all of it; check() wants the tensor's values in place and everything else still poisoned.
class GuardedOutput {
 public:
  GuardedOutput(const MatrixShape& shape, std::uint64_t row_stride, std::uint64_t offset)
      : shape_(shape),
        stride_(row_stride),
        begin_(kGuard + offset),
        memory_(kGuard + offset + shape.batch * shape.rows * row_stride + kGuard) {
    poison();
  }

  void poison() { EXPECT_CUDA(cudaMemset(memory_.data(), kPoisonByte, memory_.size_bytes())); }
  [[nodiscard]] std::uint16_t* data() const { return memory_.data() + begin_; }
  [[nodiscard]] std::uint64_t row_stride() const { return stride_; }

  void check(std::span<const std::uint16_t> expected, const std::string& what) const {
    std::vector<std::uint16_t> wanted(memory_.size(), kPoison);
    for (std::uint64_t row = 0; row < shape_.batch * shape_.rows; ++row) {
      std::copy_n(expected.data() + row * shape_.cols, shape_.cols, wanted.data() + begin_ + row * stride_);
    }
    const std::vector<std::uint16_t> found = memory_.download();
    const auto [at, other] = std::mismatch(found.begin(), found.end(), wanted.begin());
    if (at == found.end()) return;
    const auto index = at - found.begin() - static_cast<std::ptrdiff_t>(begin_);
    ADD_FAILURE() << what << ": value " << index << " from the first one on is " << *at << ", not " << *other
                  << " (poison is " << kPoison << "; row stride " << stride_ << ")";
  }

 private:
  static constexpr std::uint64_t kGuard = 4096;  ///< a multiple of 16 bytes, so that `offset` alone decides alignment
  static constexpr int kPoisonByte = 0xa5;
  static constexpr std::uint16_t kPoison = 0xa5a5;

  MatrixShape shape_;
  std::uint64_t stride_;
  std::uint64_t begin_;
  DeviceArray<std::uint16_t> memory_;
};

}  // namespace unweight::test
