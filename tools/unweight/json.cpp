// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <fmt/format.h>
#include <json.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

}  // namespace

void Json::separate() {
  if (!first_) text_ += ',';
  first_ = false;
}

void Json::open(char bracket) {
  separate();
  text_ += bracket;
  first_ = true;
}

void Json::close(char bracket) {
  text_ += bracket;
  first_ = false;
}

void Json::item(std::string_view text) {
  separate();
  text_ += text;
}

void Json::key(std::string_view name) {
  separate();
  append_string(text_, name);
  text_ += ':';
  first_ = true;
}

void Json::value(std::string_view text) {
  separate();
  append_string(text_, valid_utf8(text));
}

void Json::value(double number) { item(std::isfinite(number) ? fmt::format("{}", number) : "null"); }

void Json::array(std::span<const std::uint64_t> numbers) {
  begin_array();
  for (const std::uint64_t number : numbers) value(number);
  end_array();
}

}  // namespace unweight::cli
