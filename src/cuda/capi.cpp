// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_cuda.h> over those of <unweight/cuda.hpp>.
#include <capi/boundary.hpp>
#include <cstddef>
#include <cuda/capi_objects.hpp>
#include <fmt/format.h>
#include <span>
#include <type_traits>
#include <unweight/cuda.hpp>
#include <unweight/unweight_cuda.h>

namespace {

using unweight::DeviceBlob;
using unweight::ErrorCode;
using unweight::fail;
using unweight::MatmulArguments;
using unweight::MatmulConfig;
using unweight::Result;
using unweight::capi::check_array;
using unweight::capi::check_object;
using unweight::capi::check_struct;
using unweight::capi::fill_config;
using unweight::capi::guarded;
using unweight::capi::read_struct;
using unweight::capi::to_arguments;
using unweight::capi::to_config;
using unweight::capi::to_stream;
using unweight::capi::write_struct;

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_matmul_config> && std::is_standard_layout_v<unweight_matmul_config>);
static_assert(offsetof(unweight_matmul_config, strips) == 8);
static_assert(offsetof(unweight_matmul_config, stages) == 12);
static_assert(offsetof(unweight_matmul_config, split) == 16);
static_assert(offsetof(unweight_matmul_config, dependent_launch) == 20);
static_assert(offsetof(unweight_matmul_config, warpgroup) == 24);
static_assert(offsetof(unweight_matmul_config, reserved) == 28);
static_assert(std::is_trivial_v<unweight_matmul_arguments> && std::is_standard_layout_v<unweight_matmul_arguments>);
static_assert(offsetof(unweight_matmul_arguments, x) == 8);
static_assert(offsetof(unweight_matmul_arguments, x_stride) == 16);
static_assert(offsetof(unweight_matmul_arguments, y) == 24);
static_assert(offsetof(unweight_matmul_arguments, y_stride) == 32);
static_assert(offsetof(unweight_matmul_arguments, bias) == 40);
static_assert(offsetof(unweight_matmul_arguments, matrix) == 48);
static_assert(offsetof(unweight_matmul_arguments, workspace) == 56);
static_assert(offsetof(unweight_matmul_arguments, tokens) == 64);

// sizeof() in the release that introduced them.
constexpr std::uint64_t kFirstConfigBytes = 32, kFirstArgumentsBytes = 72;
static_assert(sizeof(unweight_matmul_config) >= kFirstConfigBytes);
static_assert(sizeof(unweight_matmul_arguments) >= kFirstArgumentsBytes);

static_assert(UNWEIGHT_DEVICE_BLOB_ALIGNMENT == unweight::kDeviceBlobAlignment);
static_assert(UNWEIGHT_MAX_MATMUL_TOKENS == unweight::kMaxMatmulTokens);

/// Runs the body with the blob of an object that may be NULL.
template <class Body>
unweight_status with_blob(const unweight_device_blob* device_blob, const Body& body) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    return body(device_blob->blob);
  });
}

}  // namespace

namespace unweight::capi {

Result<bool> to_bool(std::uint32_t value, const char* name) {
  if (value <= 1) return value == 1;
  return fail(ErrorCode::kInvalidArgument, fmt::format("{} = {} must be 0 or 1", name, value));
}

Result<MatmulConfig> to_config(const unweight_matmul_config* config, const char* name) {
  const auto read = read_struct(config, kFirstConfigBytes, name);
  if (!read) return tl::unexpected(read.error());
  const auto flag = [&](std::uint32_t value, const char* member) {
    return to_bool(value, fmt::format("{}->{}", name, member).c_str());
  };
  const auto split = flag(read->split, "split");
  const auto dependent_launch = flag(read->dependent_launch, "dependent_launch");
  const auto warpgroup = flag(read->warpgroup, "warpgroup");
  for (const auto* checked : {&split, &dependent_launch, &warpgroup}) {
    if (!*checked) return tl::unexpected(checked->error());
  }
  return MatmulConfig{.strips = read->strips,
                      .stages = read->stages,
                      .split = *split,
                      .dependent_launch = *dependent_launch,
                      .warpgroup = *warpgroup};
}

Result<void> fill_config(const MatmulConfig& from, unweight_matmul_config* config, const char* name) {
  if (auto ok = check_struct(config, kFirstConfigBytes, name); !ok) return ok;
  write_struct(unweight_matmul_config{0, from.strips, from.stages, from.split ? 1U : 0U,
                                      from.dependent_launch ? 1U : 0U, from.warpgroup ? 1U : 0U, 0},
               config);
  return {};
}

Result<MatmulArguments> to_arguments(const unweight_matmul_arguments* arguments) {
  const auto read = read_struct(arguments, kFirstArgumentsBytes, "arguments");
  if (!read) return tl::unexpected(read.error());
  return MatmulArguments{.x = read->x,
                         .x_stride = read->x_stride,
                         .y = read->y,
                         .y_stride = read->y_stride,
                         .bias = read->bias,
                         .tokens = read->tokens,
                         .matrix = read->matrix,
                         .workspace = read->workspace};
}

}  // namespace unweight::capi

unweight_status unweight_device_blob_create(const void* blob, size_t blob_bytes, const void* device_bytes,
                                            unweight_device_blob** device_blob) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    *device_blob = nullptr;
    const auto* bytes = static_cast<const std::byte*>(blob);
    if (auto ok = check_array(bytes, blob_bytes, "blob", "blob_bytes"); !ok) return ok;
    const auto created = DeviceBlob::create({bytes, blob_bytes}, device_bytes);
    if (!created) return tl::unexpected(created.error());
    *device_blob = new unweight_device_blob{*created};
    return {};
  });
}

unweight_status unweight_device_blob_open(const void* device_bytes, size_t size_bytes, void* stream,
                                          unweight_device_blob** device_blob) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    *device_blob = nullptr;
    const auto* bytes = static_cast<const std::byte*>(device_bytes);
    if (auto ok = check_array(bytes, size_bytes, "device_bytes", "size_bytes"); !ok) return ok;
    const auto opened = DeviceBlob::open({bytes, size_bytes}, to_stream(stream));
    if (!opened) return tl::unexpected(opened.error());
    *device_blob = new unweight_device_blob{*opened};
    return {};
  });
}

unweight_status unweight_device_blob_shape(const unweight_device_blob* device_blob, unweight_matrix_shape* shape) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) -> Result<void> {
    if (auto ok = check_object(shape, "shape"); !ok) return ok;
    *shape = {blob.shape().batch, blob.shape().rows, blob.shape().cols};
    return {};
  });
}

void unweight_device_blob_destroy(unweight_device_blob* device_blob) { delete device_blob; }

unweight_status unweight_device_decode(const unweight_device_blob* device_blob, uint16_t* values, uint64_t row_stride,
                                       void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) {
    return unweight::decode(blob, values, row_stride, to_stream(stream));
  });
}

unweight_status unweight_device_gather_rows(const unweight_device_blob* device_blob, const int64_t* row_numbers,
                                            size_t row_count, uint16_t* values, uint64_t row_stride, void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) -> Result<void> {
    if (auto ok = check_array(row_numbers, row_count, "row_numbers", "row_count"); !ok) return ok;
    return unweight::gather_rows(blob, {row_numbers, row_count}, values, row_stride, to_stream(stream));
  });
}

unweight_status unweight_device_prefetch_l2(const unweight_device_blob* device_blob, uint64_t begin_byte,
                                            uint64_t size_bytes, void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) {
    return unweight::prefetch_l2(blob, begin_byte, size_bytes, to_stream(stream));
  });
}

unweight_status unweight_matmul_can_implement(const unweight_device_blob* device_blob, uint32_t tokens,
                                              const unweight_matmul_config* config) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) -> Result<void> {
    const auto checked = to_config(config, "config");
    if (!checked) return tl::unexpected(checked.error());
    return unweight::can_implement(blob, tokens, *checked);
  });
}

unweight_status unweight_matmul_choose_config(const unweight_device_blob* device_blob, uint32_t tokens,
                                              unweight_matmul_config* config) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) -> Result<void> {
    if (auto ok = check_struct(config, kFirstConfigBytes, "config"); !ok) return ok;
    const auto chosen = unweight::choose_matmul_config(blob, tokens);
    if (!chosen) return tl::unexpected(chosen.error());
    return fill_config(*chosen, config, "config");
  });
}

unweight_status unweight_matmul_workspace_bytes(const unweight_device_blob* device_blob, size_t* workspace_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(workspace_bytes, "workspace_bytes"); !ok) return ok;
    *workspace_bytes = 0;
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    *workspace_bytes = unweight::matmul_workspace_bytes(device_blob->blob);
    return {};
  });
}

unweight_status unweight_matmul(const unweight_device_blob* device_blob, const unweight_matmul_arguments* arguments,
                                const unweight_matmul_config* config, void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) -> Result<void> {
    const auto operands = to_arguments(arguments);
    if (!operands) return tl::unexpected(operands.error());
    const auto checked = to_config(config, "config");
    if (!checked) return tl::unexpected(checked.error());
    return unweight::matmul(blob, *operands, *checked, to_stream(stream));
  });
}
