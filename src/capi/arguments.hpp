// SPDX-License-Identifier: Apache-2.0
//
// Arguments that the functions for blobs of both forms take, checked as far as C++ types would have checked them.
#pragma once

#include <capi/boundary.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <utility>

namespace unweight::capi {

[[nodiscard]] inline MatrixShape to_shape(const unweight_matrix_shape& shape) {
  return {shape.batch, shape.rows, shape.cols};
}

[[nodiscard]] inline std::span<const std::byte> to_bytes(const void* blob, std::size_t blob_bytes) {
  return {static_cast<const std::byte*>(blob), blob_bytes};
}

[[nodiscard]] inline Result<void> check_blob(const void* blob, std::size_t blob_bytes) {
  return check_array(static_cast<const std::byte*>(blob), blob_bytes, "blob", "blob_bytes");
}

[[nodiscard]] inline Result<void> check_values(const std::uint16_t* values, std::size_t value_count) {
  return check_array(values, value_count, "values", "value_count");
}

[[nodiscard]] inline Result<void> check_out(const void* out, std::size_t capacity_bytes) {
  return check_array(static_cast<const std::byte*>(out), capacity_bytes, "out", "capacity_bytes");
}

/// The first failure among checks made in order.
template <class... Checks>
[[nodiscard]] Result<void> all_of(Checks&&... checks) {
  Result<void> failed;
  (void)((failed = std::move(checks), failed.has_value()) && ...);
  return failed;
}

/// Encodes with `encode_into` of either form.
/// @param blob_bytes  receives the blob's size; where the buffer is too small, the size that is enough; otherwise 0
template <class EncodeInto>
[[nodiscard]] Result<void> encode_blob(const EncodeInto& encode_into, const std::uint16_t* values,
                                       std::size_t value_count, const unweight_matrix_shape* shape, unsigned threads,
                                       void* out, std::size_t capacity_bytes, std::size_t* blob_bytes) {
  if (auto ok = check_object(blob_bytes, "blob_bytes"); !ok) return ok;
  *blob_bytes = 0;
  if (auto ok = all_of(check_values(values, value_count), check_object(shape, "shape"), check_out(out, capacity_bytes));
      !ok) {
    return ok;
  }
  const auto size =
      encode_into(std::span(values, value_count), to_shape(*shape),
                  std::span(static_cast<std::byte*>(out), capacity_bytes), EncodeOptions{.threads = threads});
  if (!size) {
    if (size.error().code == ErrorCode::kBufferTooSmall) *blob_bytes = encode_bound(to_shape(*shape)).value_or(0);
    return tl::unexpected(size.error());
  }
  *blob_bytes = *size;
  return {};
}

}  // namespace unweight::capi
