// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_cuda.h> for the distribution form, over those of
// <unweight/distribution_cuda.hpp>.
#include <capi/boundary.hpp>
#include <cstddef>
#include <cuda/capi_objects.hpp>
#include <span>
#include <type_traits>

namespace {

using unweight::Result;
using unweight::capi::check_array;
using unweight::capi::check_object;
using unweight::capi::guarded;
using unweight::distribution::DeviceBlob;
using unweight::distribution::DeviceStatus;
using unweight::distribution::TranscodeOptions;
using unweight::distribution::TranscodeOutcome;

// The same memory, seen from C.
static_assert(sizeof(unweight_transcode_outcome) == sizeof(TranscodeOutcome));
static_assert(alignof(unweight_transcode_outcome) == alignof(TranscodeOutcome));
static_assert(offsetof(unweight_transcode_outcome, status) == offsetof(TranscodeOutcome, status));
static_assert(offsetof(unweight_transcode_outcome, blob_bytes) == offsetof(TranscodeOutcome, blob_bytes));
static_assert(offsetof(unweight_transcode_outcome, header) == offsetof(TranscodeOutcome, header));
static_assert(sizeof(DeviceStatus) == sizeof(std::uint64_t));

cudaStream_t to_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

TranscodeOutcome* to_outcome(unweight_transcode_outcome* outcome) {
  return reinterpret_cast<TranscodeOutcome*>(outcome);
}

/// Runs the body with the blob of an object that may be NULL.
template <class Body>
unweight_status with_blob(const unweight_distribution_device_blob* device_blob, const Body& body) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    return body(device_blob->blob);
  });
}

}  // namespace

unweight_status unweight_distribution_front_bytes(const void* header, size_t header_bytes, uint64_t* front_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(front_bytes, "front_bytes"); !ok) return ok;
    *front_bytes = 0;
    const auto* bytes = static_cast<const std::byte*>(header);
    if (auto ok = check_array(bytes, header_bytes, "header", "header_bytes"); !ok) return ok;
    const auto needed = unweight::distribution::front_bytes({bytes, header_bytes});
    if (!needed) return tl::unexpected(needed.error());
    *front_bytes = *needed;
    return {};
  });
}

unweight_status unweight_distribution_device_blob_create(const void* front, size_t front_bytes,
                                                         const void* device_bytes,
                                                         unweight_distribution_device_blob** device_blob) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    *device_blob = nullptr;
    const auto* bytes = static_cast<const std::byte*>(front);
    if (auto ok = check_array(bytes, front_bytes, "front", "front_bytes"); !ok) return ok;
    const auto created = DeviceBlob::create({bytes, front_bytes}, device_bytes);
    if (!created) return tl::unexpected(created.error());
    *device_blob = new unweight_distribution_device_blob{*created};
    return {};
  });
}

void unweight_distribution_device_blob_destroy(unweight_distribution_device_blob* device_blob) { delete device_blob; }

unweight_status unweight_distribution_device_decode(const unweight_distribution_device_blob* device_blob,
                                                    uint16_t* values, uint64_t row_stride, uint64_t* status,
                                                    void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) {
    return unweight::distribution::decode(blob, values, row_stride, reinterpret_cast<DeviceStatus*>(status),
                                          to_stream(stream));
  });
}

unweight_status unweight_distribution_check_status(uint64_t status) {
  return guarded([&] { return unweight::distribution::check(DeviceStatus{status}); });
}

unweight_status unweight_transcode_workspace_bytes(const unweight_distribution_device_blob* device_blob,
                                                   uint64_t slab_bytes, size_t* workspace_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(workspace_bytes, "workspace_bytes"); !ok) return ok;
    *workspace_bytes = 0;
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    const auto needed =
        unweight::distribution::transcode_workspace_bytes(device_blob->blob, TranscodeOptions{slab_bytes});
    if (!needed) return tl::unexpected(needed.error());
    *workspace_bytes = *needed;
    return {};
  });
}

unweight_status unweight_transcode_plan(const unweight_distribution_device_blob* device_blob, void* workspace,
                                        uint64_t slab_bytes, unweight_transcode_outcome* outcome, void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) {
    return unweight::distribution::plan_transcode(blob, workspace, TranscodeOptions{slab_bytes}, to_outcome(outcome),
                                                  to_stream(stream));
  });
}

unweight_status unweight_transcode_finish(const unweight_distribution_device_blob* device_blob, void* workspace,
                                          uint64_t slab_bytes, void* out, uint64_t capacity_bytes,
                                          unweight_transcode_outcome* outcome, void* stream) {
  return with_blob(device_blob, [&](const DeviceBlob& blob) {
    return unweight::distribution::finish_transcode(blob, workspace, TranscodeOptions{slab_bytes}, out, capacity_bytes,
                                                    to_outcome(outcome), to_stream(stream));
  });
}

unweight_status unweight_transcoded_blob(const unweight_transcode_outcome* outcome, const void* device_bytes,
                                         unweight_device_blob** device_blob) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(device_blob, "device_blob"); !ok) return ok;
    *device_blob = nullptr;
    if (auto ok = check_object(outcome, "outcome"); !ok) return ok;
    const auto created =
        unweight::distribution::transcoded_blob(*reinterpret_cast<const TranscodeOutcome*>(outcome), device_bytes);
    if (!created) return tl::unexpected(created.error());
    *device_blob = new unweight_device_blob{*created};
    return {};
  });
}
