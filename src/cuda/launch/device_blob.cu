// SPDX-License-Identifier: Apache-2.0
#include <codec/open.hpp>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/large_batch.hpp>
#include <cuda/launch/small_batch.hpp>
#include <format/blob_view.hpp>
#include <new>
#include <string>
#include <unweight/cuda.hpp>

namespace unweight {
namespace {

/// Gate for the address: aligned, and memory that kernels on the current device can read.
Result<void> check_address(const void* address) {
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  if (number % kDeviceBlobAlignment != 0) {
    return fail(ErrorCode::kInvalidArgument, "device blob: address " + std::to_string(number) +
                                                 " must be a multiple of " + std::to_string(kDeviceBlobAlignment));
  }
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) {
    return launch::cuda_failure(error, "device blob");
  }
  cudaPointerAttributes attributes{};
  if (const cudaError_t error = cudaPointerGetAttributes(&attributes, address); error != cudaSuccess) {
    return launch::cuda_failure(error, "device blob: attributes of its address");
  }
  if (attributes.devicePointer == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "device blob: its address is not device memory");
  }
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device) {
    return fail(ErrorCode::kInvalidArgument, "device blob: lies on device " + std::to_string(attributes.device) +
                                                 ", the current device is " + std::to_string(device));
  }
  return {};
}

/// Of the current device.
Result<std::uint32_t> count_multiprocessors() {
  int device = 0, count = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return launch::cuda_failure(error, "count multiprocessors");
  return static_cast<std::uint32_t>(count);
}

}  // namespace

Result<DeviceBlob> DeviceBlob::create(std::span<const std::byte> blob, const void* device_bytes) try {
  auto view = codec::open_blob(blob);
  if (!view) return tl::unexpected(view.error());
  const format::Header& header = view->header();
  DeviceBlob result;
  result.shape_ = {header.batch, header.rows, header.cols};
  result.data_ = static_cast<const std::byte*>(device_bytes);
  result.size_bytes_ = header.blob_bytes;
  result.palette_count_ = header.palette_count;
  result.layout_ = static_cast<BlobLayout>(header.layout);
  result.exception_base_ = header.exception_base;
  if (view->values() == 0) return result;
  if (result.layout_ == BlobLayout::kTiled) {
    if (auto ok = launch::can_decode(result.shape_); !ok) return tl::unexpected(ok.error());
  }
  if (auto ok = check_address(device_bytes); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_decode(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_small_batch(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_large_batch(); !ok) return tl::unexpected(ok.error());
  const auto multiprocessors = count_multiprocessors();
  if (!multiprocessors) return tl::unexpected(multiprocessors.error());
  result.multiprocessors_ = *multiprocessors;
  return result;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
