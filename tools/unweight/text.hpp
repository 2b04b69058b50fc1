// SPDX-License-Identifier: Apache-2.0
//
// Numbers and names as people read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace unweight::cli {

/// "16.06 GB": decimal units, three or four digits.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);
/// "1.23 GB/s"; "-" when no time has passed.
[[nodiscard]] std::string format_rate(std::uint64_t bytes, double seconds);
/// "0.42 s", "12.3 s", "2:05 min", "1:02:03 h".
[[nodiscard]] std::string format_seconds(double seconds);
/// "8,030,261,248".
[[nodiscard]] std::string format_count(std::uint64_t count);
/// "8.03 B": thousands, millions, billions.
[[nodiscard]] std::string format_magnitude(std::uint64_t count);
/// "1 tensor", "2 tensors".
[[nodiscard]] std::string format_count(std::uint64_t count, std::string_view noun);
/// "70.9%" of `whole`; "-" when `whole` is 0.
[[nodiscard]] std::string format_percent(std::uint64_t part, std::uint64_t whole, int digits = 1);
/// "[4096, 14336]".
[[nodiscard]] std::string format_shape(std::span<const std::uint64_t> shape);

/// The text with each invalid byte replaced by U+FFFD. Paths need not be UTF-8.
[[nodiscard]] std::string valid_utf8(std::string_view text);
/// Names come from files: valid UTF-8 without control characters, so that no file can steer the terminal. Whatever
/// else it holds becomes U+FFFD.
[[nodiscard]] std::string printable(std::string_view text);
/// Columns that printable text takes on a terminal: one a code point.
[[nodiscard]] std::size_t display_width(std::string_view text);
/// Printable text cut to `width` columns, its end kept (the end of a tensor's name says more than its beginning).
/// `ellipsis` stands for what is cut away.
[[nodiscard]] std::string shorten_front(std::string_view text, std::size_t width, std::string_view ellipsis);
inline constexpr std::string_view kEllipsis = "\u2026";

}  // namespace unweight::cli
