// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <io/json_text.hpp>

namespace unweight::io {
namespace {

constexpr std::string_view kJsonSpace = " \t\r\n";

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (code < 0x20) {
          out += "\\u00";
          out += kDigits[code >> 4];
          out += kDigits[code & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

std::string quoted_name(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::size_t length = text.size();
  if (length > kLongest) {
    length = kLongest;
    // Not in the middle of a character: back over UTF-8 continuation bytes.
    while (length > 0 && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80) --length;
  }
  std::string out;
  append_json_string(out, text.substr(0, length));
  out.front() = out.back() = '\'';
  if (length < text.size()) out += "...";
  return out;
}

void JsonWriter::break_line() {
  text_ += '\n';
  text_.append(2 * levels_.size(), ' ');
}

/// Before a key, or a value that has none: the comma and the line break that belong between it and what precedes it.
void JsonWriter::separate() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (levels_.empty()) return;
  Level& level = levels_.back();
  if (!level.empty) text_ += level.style == Style::kLine ? ", " : ",";
  if (level.style == Style::kBlock) break_line();
  level.empty = false;
}

void JsonWriter::begin(char bracket, Style style) {
  separate();
  text_ += bracket;
  levels_.push_back({style, true});
}

void JsonWriter::end(char bracket) {
  const Level level = levels_.back();
  levels_.pop_back();
  if (level.style == Style::kBlock && !level.empty) break_line();
  text_ += bracket;
}

void JsonWriter::key(std::string_view name) {
  separate();
  append_json_string(text_, name);
  text_ += ": ";
  after_key_ = true;
}

void JsonWriter::string(std::string_view value) {
  separate();
  append_json_string(text_, value);
}

void JsonWriter::number(std::uint64_t value) {
  separate();
  text_ += std::to_string(value);
}

void JsonWriter::raw(std::string_view json) {
  separate();
  text_ += json;
}

std::string insert_first_member(std::string_view document, std::string_view name, std::string_view json) {
  const std::size_t after_brace = document.find('{') + 1;
  const std::size_t next = document.find_first_not_of(kJsonSpace, after_brace);
  const bool empty_object = document[next] == '}';
  const std::string_view space = empty_object ? std::string_view{} : document.substr(after_brace, next - after_brace);

  std::string out(document.substr(0, after_brace));
  out += space;
  append_json_string(out, name);
  out += ": ";
  out += json;
  if (!empty_object) out += ',';
  out += document.substr(after_brace);
  return out;
}

}  // namespace unweight::io
