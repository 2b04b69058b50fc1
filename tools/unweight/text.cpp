// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <text.hpp>

namespace unweight::cli {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

/// Length of the valid UTF-8 sequence at the front of `text`, or 0.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
  const bool surrogate = lead == 0xed && second >= 0xa0;
  const bool too_large = lead == 0xf4 && second >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

/// C0, DEL, C1, and the characters that XML cannot hold or that turn the direction of a line.
bool is_control(std::string_view sequence) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(sequence[i]); };
  if (sequence.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7f;
  if (sequence.size() == 2) return byte(0) == 0xc2 && byte(1) < 0xa0;
  if (sequence.size() == 3) {
    const bool separator_or_bidi = byte(0) == 0xe2 && byte(1) == 0x80 && byte(2) >= 0xa8 && byte(2) <= 0xae;
    const bool isolate = byte(0) == 0xe2 && byte(1) == 0x81 && byte(2) >= 0xa6 && byte(2) <= 0xa9;
    const bool noncharacter = byte(0) == 0xef && byte(1) == 0xbf && byte(2) >= 0xbe;
    return separator_or_bidi || isolate || noncharacter;
  }
  return false;
}

/// Replaces what is not UTF-8, and the characters for which `unwanted` is true.
template <class Predicate>
std::string replace_sequences(std::string_view text, const Predicate& unwanted) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    result += length == 0 || unwanted(sequence) ? kReplacement : sequence;
    text.remove_prefix(sequence.size());
  }
  return result;
}

/// Three or four digits and the unit for that power of 1000.
std::string scaled(std::uint64_t number, const std::array<std::string_view, 7>& units) {
  auto value = static_cast<double>(number);
  std::size_t unit = 0;
  while (value >= 999.95 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  const int digits = unit == 0 ? 0 : value < 99.995 ? 2 : 1;
  return fmt::format("{:.{}f}{}{}", value, digits, units[unit].empty() ? "" : " ", units[unit]);
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

std::string format_bytes(std::uint64_t bytes) { return scaled(bytes, {"B", "kB", "MB", "GB", "TB", "PB", "EB"}); }

std::string format_magnitude(std::uint64_t count) {
  return scaled(count, {"", "k", "M", "B", "T", "quadrillion", "quintillion"});
}

std::string format_rate(std::uint64_t bytes, double seconds) {
  if (!(seconds > 0)) return "-";
  const double rate = static_cast<double>(bytes) / seconds;
  return rate < 1e18 ? format_bytes(static_cast<std::uint64_t>(rate)) + "/s" : "-";
}

std::string format_seconds(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-";
  if (seconds < 9.995) return fmt::format("{:.2f} s", seconds);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<std::uint64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02} h", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string format_count(std::uint64_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

std::string format_count(std::uint64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", format_count(count), noun, count == 1 ? "" : "s");
}

std::string format_percent(std::uint64_t part, std::uint64_t whole, int digits) {
  if (whole == 0) return "-";
  return fmt::format("{:.{}f}%", 100.0 * static_cast<double>(part) / static_cast<double>(whole), digits);
}

std::string format_shape(std::span<const std::uint64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::string valid_utf8(std::string_view text) {
  return replace_sequences(text, [](std::string_view) { return false; });
}

std::string printable(std::string_view text) { return replace_sequences(text, is_control); }

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (const char c : text) width += is_continuation(c) ? 0U : 1U;
  return width;
}

std::string shorten_front(std::string_view text, std::size_t width, std::string_view ellipsis) {
  const std::size_t have = display_width(text);
  if (have <= width) return std::string(text);
  const std::size_t ellipsis_width = display_width(ellipsis);
  if (width < ellipsis_width) return {};
  for (std::size_t drop = have - width + ellipsis_width; drop > 0; --drop) {
    text.remove_prefix(1);
    while (!text.empty() && is_continuation(text.front())) text.remove_prefix(1);
  }
  return std::string(ellipsis).append(text);
}

}  // namespace unweight::cli
