// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight.h> for the distribution form, over those of <unweight/distribution.hpp>.
#include <capi/arguments.hpp>
#include <type_traits>
#include <unweight/distribution.hpp>

namespace {

using unweight::Result;
using unweight::capi::all_of;
using unweight::capi::check_blob;
using unweight::capi::check_struct;
using unweight::capi::check_values;
using unweight::capi::encode_blob;
using unweight::capi::guarded;
using unweight::capi::to_bytes;
using unweight::capi::write_struct;
namespace distribution = unweight::distribution;

// What programs have compiled in: members never move.
static_assert(std::is_trivial_v<unweight_distribution_info> && std::is_standard_layout_v<unweight_distribution_info>);
static_assert(offsetof(unweight_distribution_info, shape) == 8);
static_assert(offsetof(unweight_distribution_info, layout) == 32);
static_assert(offsetof(unweight_distribution_info, version_major) == 36);
static_assert(offsetof(unweight_distribution_info, version_minor) == 38);
static_assert(offsetof(unweight_distribution_info, blob_bytes) == 40);
static_assert(offsetof(unweight_distribution_info, value_bytes) == 48);
static_assert(offsetof(unweight_distribution_info, block_count) == 56);
static_assert(offsetof(unweight_distribution_info, escape_count) == 64);
static_assert(offsetof(unweight_distribution_info, class_count) == 72);
static_assert(offsetof(unweight_distribution_info, scale_count) == 76);
static_assert(offsetof(unweight_distribution_info, content_checksum) == 80);
static_assert(offsetof(unweight_distribution_info, bits_per_weight) == 88);

constexpr std::uint64_t kFirstInfoBytes = 96;  // sizeof(unweight_distribution_info) when it was introduced
static_assert(sizeof(unweight_distribution_info) >= kFirstInfoBytes);
static_assert(UNWEIGHT_DISTRIBUTION_RAW == static_cast<int>(distribution::Layout::kRaw));
static_assert(UNWEIGHT_DISTRIBUTION_CODED == static_cast<int>(distribution::Layout::kCoded));

Result<void> check_info(const unweight_distribution_info* info) { return check_struct(info, kFirstInfoBytes, "info"); }

void fill(const distribution::Info& from, unweight_distribution_info& to) {
  unweight_distribution_info info{};
  info.shape = {from.shape.batch, from.shape.rows, from.shape.cols};
  info.layout = static_cast<std::uint32_t>(from.layout);
  info.version_major = from.version_major;
  info.version_minor = from.version_minor;
  info.blob_bytes = from.blob_bytes;
  info.value_bytes = from.value_bytes;
  info.block_count = from.block_count;
  info.escape_count = from.escape_count;
  info.class_count = from.class_count;
  info.scale_count = from.scale_count;
  info.content_checksum = from.content_checksum;
  info.bits_per_weight = from.bits_per_weight;
  write_struct(info, &to);
}

}  // namespace

unweight_status unweight_distribution_inspect(const void* blob, size_t blob_bytes, unweight_distribution_info* info) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_info(info)); !ok) return ok;
    const auto found = distribution::inspect(to_bytes(blob, blob_bytes));
    if (!found) return tl::unexpected(found.error());
    fill(*found, *info);
    return {};
  });
}

unweight_status unweight_distribution_verify_blob(const void* blob, size_t blob_bytes, unsigned threads,
                                                  unweight_distribution_info* info) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), info == nullptr ? Result<void>{} : check_info(info)); !ok) {
      return ok;
    }
    const auto found = distribution::verify_blob(to_bytes(blob, blob_bytes), {.threads = threads});
    if (!found) return tl::unexpected(found.error());
    if (info != nullptr) fill(*found, *info);
    return {};
  });
}

unweight_status unweight_distribution_encode(const uint16_t* values, size_t value_count,
                                             const unweight_matrix_shape* shape, unsigned threads, void* out,
                                             size_t capacity_bytes, size_t* blob_bytes) {
  return guarded([&]() -> Result<void> {
    return encode_blob(distribution::encode_into, values, value_count, shape, threads, out, capacity_bytes, blob_bytes);
  });
}

unweight_status unweight_distribution_decode(const void* blob, size_t blob_bytes, uint16_t* values, size_t value_count,
                                             unsigned threads, int verify_checksums) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_values(values, value_count)); !ok) return ok;
    return distribution::decode(to_bytes(blob, blob_bytes), {values, value_count},
                                {.threads = threads, .verify_checksums = verify_checksums != 0});
  });
}

unweight_status unweight_distribution_decode_rows(const void* blob, size_t blob_bytes, uint64_t row_begin,
                                                  uint64_t row_count, uint16_t* values, size_t value_count,
                                                  unsigned threads) {
  return guarded([&]() -> Result<void> {
    if (auto ok = all_of(check_blob(blob, blob_bytes), check_values(values, value_count)); !ok) return ok;
    return distribution::decode_rows(to_bytes(blob, blob_bytes), row_begin, row_count, {values, value_count},
                                     {.threads = threads});
  });
}
