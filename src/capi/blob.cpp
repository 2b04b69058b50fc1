// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight.h> over those of <unweight/blob.hpp>: arguments are checked here as far as C++
// types would have checked them, all else there.
#include <capi/arguments.hpp>
#include <cstring>
#include <span>
#include <type_traits>
#include <unweight/blob.hpp>

namespace {

using unweight::BlobInfo;
using unweight::ErrorCode;
using unweight::fail;
using unweight::Result;
using unweight::capi::all_of;
using unweight::capi::check_blob;
using unweight::capi::check_object;
using unweight::capi::check_out;
using unweight::capi::check_struct;
using unweight::capi::check_values;
using unweight::capi::encode_blob;
using unweight::capi::guarded;
using unweight::capi::to_bytes;
using unweight::capi::to_shape;
using unweight::capi::write_struct;

static_assert(sizeof(std::size_t) == sizeof(std::uint64_t), "sizes of blobs are 64-bit numbers");

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_blob_info> && std::is_standard_layout_v<unweight_blob_info>);
static_assert(offsetof(unweight_blob_info, shape) == 8);
static_assert(offsetof(unweight_blob_info, layout) == 32);
static_assert(offsetof(unweight_blob_info, version_major) == 36);
static_assert(offsetof(unweight_blob_info, version_minor) == 38);
static_assert(offsetof(unweight_blob_info, blob_bytes) == 40);
static_assert(offsetof(unweight_blob_info, value_bytes) == 48);
static_assert(offsetof(unweight_blob_info, tile_count) == 56);
static_assert(offsetof(unweight_blob_info, exception_count) == 64);
static_assert(offsetof(unweight_blob_info, escaped_tiles) == 72);
static_assert(offsetof(unweight_blob_info, palette_count) == 80);
static_assert(offsetof(unweight_blob_info, reserved) == 84);
static_assert(offsetof(unweight_blob_info, content_checksum) == 88);
static_assert(offsetof(unweight_blob_info, bits_per_weight) == 96);
static_assert(sizeof(unweight_matrix_shape) == 24 && sizeof(unweight_slice_range) == 48);

constexpr std::uint64_t kFirstBlobInfoBytes = 104;  // sizeof(unweight_blob_info) in the release that introduced it
static_assert(sizeof(unweight_blob_info) >= kFirstBlobInfoBytes);

static_assert(UNWEIGHT_SLICE_ROWS == unweight::kSliceRows && UNWEIGHT_SLICE_COLS == unweight::kSliceCols);
static_assert(UNWEIGHT_LAYOUT_RAW == static_cast<int>(unweight::BlobLayout::kRaw));
static_assert(UNWEIGHT_LAYOUT_TILED == static_cast<int>(unweight::BlobLayout::kTiled));

Result<void> check_info(const unweight_blob_info* info) { return check_struct(info, kFirstBlobInfoBytes, "info"); }

void fill(const BlobInfo& from, unweight_blob_info& to) {
  unweight_blob_info info{};
  info.shape = {from.shape.batch, from.shape.rows, from.shape.cols};
  info.layout = static_cast<std::uint32_t>(from.layout);
  info.version_major = from.version_major;
  info.version_minor = from.version_minor;
  info.blob_bytes = from.blob_bytes;
  info.value_bytes = from.value_bytes;
  info.tile_count = from.tile_count;
  info.exception_count = from.exception_count;
  info.escaped_tiles = from.escaped_tiles;
  info.palette_count = from.palette_count;
  info.content_checksum = from.content_checksum;
  info.bits_per_weight = from.bits_per_weight;
  write_struct(info, &to);
}

}  // namespace

unweight_status unweight_inspect(const void* blob, size_t blob_bytes, unweight_blob_info* info) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_info(info)); !ok) return ok;
    const auto found = unweight::inspect(to_bytes(blob, blob_bytes));
    if (!found) return tl::unexpected(found.error());
    fill(*found, *info);
    return {};
  });
}

unweight_status unweight_verify_blob(const void* blob, size_t blob_bytes, unsigned threads, unweight_blob_info* info) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), info == nullptr ? Result<void>{} : check_info(info)); !ok) {
      return ok;
    }
    const auto found = unweight::verify_blob(to_bytes(blob, blob_bytes), {.threads = threads});
    if (!found) return tl::unexpected(found.error());
    if (info != nullptr) fill(*found, *info);
    return {};
  });
}

unweight_status unweight_encode_bound(const unweight_matrix_shape* shape, size_t* bound_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(bound_bytes, "bound_bytes"); !ok) return ok;
    *bound_bytes = 0;
    if (auto ok = check_object(shape, "shape"); !ok) return ok;
    const auto bound = unweight::encode_bound(to_shape(*shape));
    if (!bound) return tl::unexpected(bound.error());
    *bound_bytes = *bound;
    return {};
  });
}

unweight_status unweight_encode(const uint16_t* values, size_t value_count, const unweight_matrix_shape* shape,
                                unsigned threads, void* out, size_t capacity_bytes, size_t* blob_bytes) {
  return guarded([&]() -> Result<void> {
    return encode_blob(unweight::encode_into, values, value_count, shape, threads, out, capacity_bytes, blob_bytes);
  });
}

unweight_status unweight_decode(const void* blob, size_t blob_bytes, uint16_t* values, size_t value_count,
                                unsigned threads, int verify_checksums) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_values(values, value_count)); !ok) return ok;
    return unweight::decode(to_bytes(blob, blob_bytes), {values, value_count},
                            {.threads = threads, .verify_checksums = verify_checksums != 0});
  });
}

unweight_status unweight_decode_rows(const void* blob, size_t blob_bytes, uint64_t row_begin, uint64_t row_count,
                                     uint16_t* values, size_t value_count, unsigned threads) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_values(values, value_count)); !ok) return ok;
    return unweight::decode_rows(to_bytes(blob, blob_bytes), row_begin, row_count, {values, value_count},
                                 {.threads = threads});
  });
}

unweight_status unweight_slice(const void* blob, size_t blob_bytes, const unweight_slice_range* range, void* out,
                               size_t capacity_bytes, size_t* slice_bytes) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_object(slice_bytes, "slice_bytes"); !ok) return ok;
    *slice_bytes = 0;
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_object(range, "range"), check_out(out, capacity_bytes));
        !ok) {
      return ok;
    }
    const auto slice = unweight::slice(to_bytes(blob, blob_bytes), {.batch_begin = range->batch_begin,
                                                                    .batch_end = range->batch_end,
                                                                    .row_begin = range->row_begin,
                                                                    .row_end = range->row_end,
                                                                    .col_begin = range->col_begin,
                                                                    .col_end = range->col_end});
    if (!slice) return tl::unexpected(slice.error());
    *slice_bytes = slice->size();
    if (out == nullptr) return {};
    if (capacity_bytes < slice->size()) {
      return fail(ErrorCode::kBufferTooSmall,
                  fmt::format("output buffer of {} bytes, the slice has {}", capacity_bytes, slice->size()));
    }
    std::memcpy(out, slice->data(), slice->size());
    return {};
  });
}
