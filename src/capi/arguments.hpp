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

}  // namespace unweight::capi
