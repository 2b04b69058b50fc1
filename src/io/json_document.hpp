// SPDX-License-Identifier: Apache-2.0
//
// Reading untrusted JSON: strict parsing and typed access with errors that name the member. Private to src/io, because
// it brings simdjson.h along.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <simdjson.h>
#include <string>
#include <string_view>
#include <unweight/result.hpp>

namespace unweight::io {

inline constexpr std::size_t kJsonPaddingBytes = simdjson::SIMDJSON_PADDING;

/// A parsed document: its elements live as long as it does, the text need not. Members that occur twice stay visible.
class JsonDocument {
 public:
  /// Strict RFC 8259: UTF-8 checked, no NaN, no trailing text, at most 1024 levels. Errors: kBadJson.
  [[nodiscard]] static Result<JsonDocument> parse(std::string_view text);
  /// The same without a copy of the text: kJsonPaddingBytes readable bytes follow it.
  [[nodiscard]] static Result<JsonDocument> parse_padded(std::string_view text);

  [[nodiscard]] simdjson::dom::element root() const noexcept { return root_; }

 private:
  [[nodiscard]] static Result<JsonDocument> parse(std::string_view text, bool padded);

  std::unique_ptr<simdjson::dom::document> document_;
  simdjson::dom::element root_;
};

/// One member of `object`; `what` names the object in errors. kBadJson when it is missing, present twice, or of
/// another type.
[[nodiscard]] Result<simdjson::dom::element> json_member(simdjson::dom::object object, std::string_view name,
                                                         std::string_view what);
[[nodiscard]] Result<std::string_view> json_string(simdjson::dom::object object, std::string_view name,
                                                   std::string_view what);
[[nodiscard]] Result<std::uint64_t> json_number(simdjson::dom::object object, std::string_view name,
                                                std::string_view what);
[[nodiscard]] Result<simdjson::dom::array> json_array(simdjson::dom::object object, std::string_view name,
                                                      std::string_view what);
[[nodiscard]] Result<simdjson::dom::object> json_object(simdjson::dom::object object, std::string_view name,
                                                        std::string_view what);

}  // namespace unweight::io
