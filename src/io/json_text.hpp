// SPDX-License-Identifier: Apache-2.0
//
// Making JSON text: a small writer whose output is a pure function of the calls, and an insertion that leaves every
// other byte of a document alone. Reading is in json_document.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace unweight::io {

/// Appends `text` (UTF-8) as a JSON string with its quotes. Escapes only what JSON requires.
void append_json_string(std::string& out, std::string_view text);

/// `text` in single quotes for a message: on one line, control characters escaped, and cut after 200 bytes, because
/// names come from files.
[[nodiscard]] std::string quoted_name(std::string_view text);

/// Writes one JSON value. Containers are either blocks (one member a line, two spaces of indentation) or lines.
///
///   JsonWriter json;
///   json.begin_object();
///   json.key("shape"); json.begin_array(JsonWriter::Style::kLine); json.number(2); json.number(3); json.end_array();
///   json.end_object();
class JsonWriter {
 public:
  enum class Style : std::uint8_t { kBlock, kLine };

  void begin_object(Style style = Style::kBlock) { begin('{', style); }
  void end_object() { end('}'); }
  void begin_array(Style style = Style::kBlock) { begin('[', style); }
  void end_array() { end(']'); }
  void key(std::string_view name);
  void string(std::string_view value);
  void number(std::uint64_t value);
  /// A value that is JSON already.
  void raw(std::string_view json);

  // One member in one call.
  void member(std::string_view name, std::string_view value) { key(name), string(value); }
  void member(std::string_view name, std::uint64_t value) { key(name), number(value); }

  /// The text so far; complete when every container has ended.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  struct Level {
    Style style;
    bool empty;
  };

  void begin(char bracket, Style style);
  void end(char bracket);
  void separate();
  void break_line();

  std::string text_;
  std::vector<Level> levels_;
  bool after_key_ = false;
};

/// Inserts `"name": json` as the first member of the object that `document` is, in the document's own indentation;
/// every other byte stays. `document` must be valid JSON with an object at its root.
[[nodiscard]] std::string insert_first_member(std::string_view document, std::string_view name, std::string_view json);

}  // namespace unweight::io
