// SPDX-License-Identifier: Apache-2.0
#include <codec/open.hpp>
#include <cstring>
#include <cuda/launch/cuda_error.hpp>
#include <cuda/launch/current_device.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/gather_rows.hpp>
#include <cuda/launch/large_batch.hpp>
#include <cuda/launch/small_batch.hpp>
#include <format/layout.hpp>
#include <new>
#include <string>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight {
namespace {

/// Copies from device memory, after what `stream` has been given, and waits.
Result<void> fetch(std::span<const std::byte> from, std::span<std::byte> to, cudaStream_t stream) {
  cudaError_t error = cudaMemcpyAsync(to.data(), from.data(), to.size(), cudaMemcpyDeviceToHost, stream);
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
  if (error != cudaSuccess) return launch::cuda_failure(error, "device blob: copy of its header and tables");
  return {};
}

}  // namespace

/// The gate for the address and the device; the bytes have passed theirs.
Result<DeviceBlob> DeviceBlob::of_validated(std::span<const std::byte> header_bytes, const void* device_bytes) {
  format::Header header;
  std::memcpy(&header, header_bytes.data(), sizeof header);
  DeviceBlob result;
  result.shape_ = {header.batch, header.rows, header.cols};
  result.data_ = static_cast<const std::byte*>(device_bytes);
  result.size_bytes_ = header.blob_bytes;
  result.palette_count_ = header.palette_count;
  result.layout_ = static_cast<BlobLayout>(header.layout);
  result.exception_base_ = header.exception_base;
  result.exception_units_ = header.exception_units;
  if (header.batch == 0 || header.rows == 0 || header.cols == 0) return result;
  if (result.layout_ == BlobLayout::kTiled) {
    if (auto ok = launch::can_decode(result.shape_); !ok) return tl::unexpected(ok.error());
  }
  if (auto ok = launch::check_device_address(device_bytes, "device blob"); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_decode(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_gather_rows(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_small_batch(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_large_batch(); !ok) return tl::unexpected(ok.error());
  const auto multiprocessors = launch::multiprocessors();
  if (!multiprocessors) return tl::unexpected(multiprocessors.error());
  result.multiprocessors_ = *multiprocessors;
  return result;
}

Result<DeviceBlob> DeviceBlob::create(std::span<const std::byte> blob, const void* device_bytes) try {
  if (const auto view = codec::open_blob(blob); !view) return tl::unexpected(view.error());
  return of_validated(blob, device_bytes);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<DeviceBlob> DeviceBlob::create(std::span<const std::byte> header, std::span<const std::byte> tables,
                                      const void* device_bytes) try {
  if (const auto validated = codec::open_tables(header, tables); !validated) {
    return tl::unexpected(validated.error());
  }
  return of_validated(header, device_bytes);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<DeviceBlob> DeviceBlob::create_unchecked(std::span<const std::byte> header, const void* device_bytes) try {
  if (const auto range = codec::tables_range(header); !range) return tl::unexpected(range.error());
  return of_validated(header, device_bytes);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<DeviceBlob> DeviceBlob::open(std::span<const std::byte> device_bytes, cudaStream_t stream) try {
  if (device_bytes.size() < format::kHeaderBytes) {
    return fail(ErrorCode::kTruncated, "device blob: " + std::to_string(device_bytes.size()) +
                                           " bytes are less than a header of " + std::to_string(format::kHeaderBytes) +
                                           " bytes");
  }
  if (auto ok = launch::check_device_address(device_bytes.data(), "device blob"); !ok) {
    return tl::unexpected(ok.error());
  }
  std::byte header[format::kHeaderBytes];
  if (auto ok = fetch(device_bytes.first(sizeof header), header, stream); !ok) return tl::unexpected(ok.error());
  const auto range = codec::tables_range(header);
  if (!range) return tl::unexpected(range.error());
  format::Header fields;
  std::memcpy(&fields, header, sizeof fields);
  if (fields.blob_bytes > device_bytes.size()) {
    return fail(ErrorCode::kTruncated, "device blob: " + std::to_string(device_bytes.size()) +
                                           " bytes, its header says " + std::to_string(fields.blob_bytes));
  }
  std::vector<std::byte> tables(range->size);
  if (auto ok = fetch(device_bytes.subspan(range->offset, range->size), tables, stream); !ok) {
    return tl::unexpected(ok.error());
  }
  return create(header, tables, device_bytes.data());
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<BlobRange> blob_tables(std::span<const std::byte> header) try {
  const auto range = codec::tables_range(header);
  if (!range) return tl::unexpected(range.error());
  return BlobRange{range->offset, range->size};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<DeviceBlob> decode_to_raw(const DeviceBlob& blob, void* device_bytes, cudaStream_t stream) try {
  const MatrixShape& shape = blob.shape();
  DeviceBlob raw = blob;
  raw.layout_ = BlobLayout::kRaw;
  raw.data_ = static_cast<const std::byte*>(device_bytes);
  raw.size_bytes_ = format::raw_blob_bytes(shape.batch * shape.rows * shape.cols);
  raw.exception_units_ = 0;
  raw.palette_count_ = 0;
  raw.exception_base_ = 0;
  if (shape.batch == 0 || shape.rows == 0 || shape.cols == 0) return raw;
  if (auto ok = launch::check_device_address(device_bytes, "raw blob"); !ok) return tl::unexpected(ok.error());
  if (const cudaError_t error = cudaMemsetAsync(device_bytes, 0, format::kHeaderBytes, stream); error != cudaSuccess) {
    return launch::cuda_failure(error, "decode: clear a header");
  }
  auto* const values = reinterpret_cast<std::uint16_t*>(static_cast<std::byte*>(device_bytes) + format::kHeaderBytes);
  if (auto ok = decode(blob, values, shape.cols, stream); !ok) return tl::unexpected(ok.error());
  return raw;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
