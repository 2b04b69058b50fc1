// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <failure.hpp>
#include <fmt/format.h>
#include <shapes.hpp>

namespace unweight::bench {

MatrixShape parse_shape(const std::string& text) {
  MatrixShape shape;
  const char *begin = text.data(), *end = begin + text.size();
  const auto rows = std::from_chars(begin, end, shape.rows);
  if (rows.ec == std::errc{} && rows.ptr != end && *rows.ptr == 'x') {
    const auto cols = std::from_chars(rows.ptr + 1, end, shape.cols);
    constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
    if (cols.ec == std::errc{} && cols.ptr == end && shape.rows - 1 < kMost && shape.cols - 1 < kMost) return shape;
  }
  stop(fmt::format("shape '{}' is not ROWSxCOLS", text));
}

std::string to_string(const MatrixShape& shape) { return fmt::format("{}x{}", shape.rows, shape.cols); }

}  // namespace unweight::bench
