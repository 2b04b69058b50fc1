// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/open.hpp>
#include <cstring>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/gather_rows.hpp>
#include <cuda/launch/small_batch.hpp>
#include <format/blob_view.hpp>
#include <memory>
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

/// Bytes [begin, end) of a blob in device memory to their place in its image on the host.
Result<void> fetch(std::span<const std::byte> device_bytes, std::byte* image, std::uint64_t begin, std::uint64_t end,
                   cudaStream_t stream) {
  if (begin >= end) return {};
  cudaError_t error =
      cudaMemcpyAsync(image + begin, device_bytes.data() + begin, end - begin, cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  if (error != cudaSuccess) return launch::cuda_failure(error, "device blob: copy of its header and tables");
  return {};
}

}  // namespace

Result<DeviceBlob> DeviceBlob::open(std::span<const std::byte> device_bytes, cudaStream_t stream) try {
  if (device_bytes.size() < format::kHeaderBytes) {
    return fail(ErrorCode::kTruncated, "device blob: " + std::to_string(device_bytes.size()) +
                                           " bytes are less than a header of " + std::to_string(format::kHeaderBytes) +
                                           " bytes");
  }
  if (auto ok = check_address(device_bytes.data()); !ok) return tl::unexpected(ok.error());
  std::byte head[format::kHeaderBytes];
  if (auto ok = fetch(device_bytes, head, 0, sizeof head, stream); !ok) return tl::unexpected(ok.error());
  const auto header = format::read_header(head);
  if (!header) return tl::unexpected(header.error());
  // What the header says is checked by create(); until then it only must not lead out of the memory.
  const std::uint64_t size = std::min<std::uint64_t>(header->blob_bytes, device_bytes.size());
  const std::uint64_t tables_end = std::min(header->exceptions_offset, size);
  // Uninitialised: pages that nothing is copied to cost nothing, and create() does not look at them.
  const auto image = std::make_unique_for_overwrite<std::byte[]>(std::max<std::uint64_t>(size, sizeof head));
  std::memcpy(image.get(), head, sizeof head);
  if (auto ok = fetch(device_bytes, image.get(), std::max<std::uint64_t>(header->segment_starts_offset, sizeof head),
                      tables_end, stream);
      !ok) {
    return tl::unexpected(ok.error());
  }
  return create({image.get(), std::max<std::uint64_t>(size, sizeof head)}, device_bytes.data());
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

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
  if (auto ok = launch::load_gather_rows(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_small_batch(); !ok) return tl::unexpected(ok.error());
  const auto multiprocessors = launch::multiprocessors();
  if (!multiprocessors) return tl::unexpected(multiprocessors.error());
  result.multiprocessors_ = *multiprocessors;
  return result;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
