// SPDX-License-Identifier: Apache-2.0
//
// One JSON value on one line, for programs that read the tool's output.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace unweight::cli {

/// Text is made printable-safe: invalid UTF-8 becomes U+FFFD, control characters are escaped.
///
///   Json json;
///   json.begin_object();
///   json.member("name", "q_proj");
///   json.key("shape");
///   json.array(shape);
///   json.end_object();
class Json {
 public:
  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }
  void key(std::string_view name);

  void value(std::string_view text);
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool truth) { item(truth ? "true" : "false"); }
  /// Shortest form that reads back the same; null when not finite.
  void value(double number);
  template <std::unsigned_integral Integer>
  requires(!std::same_as<Integer, bool>) void value(Integer number) { item(std::to_string(number)); }

  template <class T>
  void member(std::string_view name, const T& content) {
    key(name);
    value(content);
  }
  void array(std::span<const std::uint64_t> numbers);

  /// Complete when all that was begun has ended.
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  void open(char bracket);
  void close(char bracket);
  void item(std::string_view text);
  void separate();

  std::string text_;
  bool first_ = true;  ///< no comma before the next item
};

}  // namespace unweight::cli
