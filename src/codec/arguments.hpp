// SPDX-License-Identifier: Apache-2.0
//
// What the entry points of both forms' codecs check of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>

namespace unweight::codec {

/// Returns the size of the raw blob, which `out` can hold.
[[nodiscard]] inline Result<std::uint64_t> check_encode_arguments(std::span<const std::uint16_t> values,
                                                                  const MatrixShape& shape,
                                                                  std::span<const std::byte> out) {
  auto bound = encode_bound(shape);  // not const: returning it moves, while copying an error allocates
  if (!bound) return bound;
  if (const std::uint64_t count = shape.batch * shape.rows * shape.cols; values.size() != count) {
    return fail(ErrorCode::kShapeMismatch, fmt::format("{} values for shape {} x {} x {}, which has {}", values.size(),
                                                       shape.batch, shape.rows, shape.cols, count));
  }
  if (out.size() < *bound) {
    return fail(ErrorCode::kBufferTooSmall,
                fmt::format("output buffer of {} bytes, encode_bound() is {}", out.size(), *bound));
  }
  return bound;
}

/// Whether rows [row_begin, row_begin + row_count) are the tensor's, and as many values as a buffer of `value_count`.
[[nodiscard]] inline Result<void> check_row_range(const MatrixShape& shape, std::uint64_t row_begin,
                                                  std::uint64_t row_count, std::size_t value_count) {
  const std::uint64_t rows = shape.batch * shape.rows;
  if (row_begin > rows || row_count > rows - row_begin) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("row_begin = {} and row_count = {} are out of range: the tensor has {} rows", row_begin,
                            row_count, rows));
  }
  if (value_count != row_count * shape.cols) {
    return fail(ErrorCode::kShapeMismatch, fmt::format("buffer of {} values for {} rows of {}, which are {}",
                                                       value_count, row_count, shape.cols, row_count * shape.cols));
  }
  return {};
}

}  // namespace unweight::codec
