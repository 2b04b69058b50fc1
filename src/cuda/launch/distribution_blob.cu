// SPDX-License-Identifier: Apache-2.0
#include <codec/distribution_open.hpp>
#include <cuda/device/decode_status.cuh>
#include <cuda/launch/current_device.hpp>
#include <cuda/launch/decode.hpp>
#include <cuda/launch/distribution_decode.hpp>
#include <format/distribution_layout.hpp>
#include <new>
#include <string>
#include <unweight/distribution_cuda.hpp>

namespace unweight::distribution {
namespace {

constexpr std::uint64_t kIndexLimit = std::uint64_t{1} << 31;

std::string text(std::uint64_t value) { return std::to_string(value); }

/// Whether the kernels' index arithmetic covers the shape.
Result<void> check_limits(const MatrixShape& shape) {
  const format::distribution::Blocks blocks = format::distribution::cut_blocks(shape.batch, shape.rows, shape.cols);
  if (blocks.count >= kIndexLimit) {
    return fail(ErrorCode::kInvalidArgument, "distribution device blob: shape " + text(shape.batch) + " x " +
                                                 text(shape.rows) + " x " + text(shape.cols) +
                                                 " has 2^31 blocks or more");
  }
  return launch::can_decode(shape);
}

}  // namespace

Result<DeviceBlob> DeviceBlob::create(std::span<const std::byte> front, const void* device_bytes) try {
  const auto opened = codec::distribution::open_front(front);
  if (!opened) return tl::unexpected(opened.error());
  const format::distribution::Header& header = opened->header();
  DeviceBlob result;
  result.shape_ = {header.batch, header.rows, header.cols};
  result.data_ = static_cast<const std::byte*>(device_bytes);
  result.size_bytes_ = header.blob_bytes;
  result.stream_bytes_ = header.stream_bytes;
  result.content_checksum_ = header.content_checksum;
  result.class_count_ = header.class_count;
  result.scale_count_ = header.scale_count;
  result.table_units_ = header.table_units;
  result.layout_ = static_cast<Layout>(header.layout);
  if (opened->values() != 0) {
    if (auto ok = check_limits(result.shape_); !ok) return tl::unexpected(ok.error());
    if (auto ok = launch::check_device_address(device_bytes, "distribution device blob"); !ok) {
      return tl::unexpected(ok.error());
    }
  }
  if (auto ok = launch::load_distribution_decode(); !ok) return tl::unexpected(ok.error());
  if (auto ok = launch::load_transcode(); !ok) return tl::unexpected(ok.error());
  const auto multiprocessors = launch::multiprocessors();
  if (!multiprocessors) return tl::unexpected(multiprocessors.error());
  result.multiprocessors_ = *multiprocessors;
  return result;
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<std::uint64_t> front_bytes(std::span<const std::byte> header) try {
  return codec::distribution::front_bytes(header);
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

Result<void> check(const DeviceStatus& status) try {
  switch (device::finding_of(status.word)) {
    case device::Finding::kNone:
      return {};
    case device::Finding::kContentChecksum:
      return fail(ErrorCode::kChecksumMismatch, "decoded tensor: its checksum is not the stored one");
    case device::Finding::kTooLarge:
      return fail(ErrorCode::kBufferTooSmall, "transcode: the runtime blob is larger than its buffer");
    case device::Finding::kCorruptBlock:
      return fail(ErrorCode::kCorruptPayload,
                  "distribution blob: block " + text(device::number_of(status.word)) + " is corrupt");
  }
  return fail(ErrorCode::kInvalidArgument, "device status: " + text(status.word) + " is none");
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, "out of memory");
}

}  // namespace unweight::distribution
