// SPDX-License-Identifier: Apache-2.0
#include <codec/open.hpp>
#include <cstring>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/device_address.hpp>
#include <cuda/launch/small_batch.hpp>
#include <format/layout.hpp>
#include <new>
#include <unweight/cuda.hpp>

namespace unweight {

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
  if (header.batch == 0 || header.rows == 0 || header.cols == 0) return result;
  if (result.layout_ == BlobLayout::kTiled) {
    if (auto ok = launch::can_decode(result.shape_); !ok) return tl::unexpected(ok.error());
  }
  if (auto ok = launch::check_device_address(device_bytes, "device blob"); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_decode(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_small_batch(); !ok) return tl::unexpected(ok.error());
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

Result<BlobRange> blob_tables(std::span<const std::byte> header) try {
  const auto range = codec::tables_range(header);
  if (!range) return tl::unexpected(range.error());
  return BlobRange{range->offset, range->size};
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight
