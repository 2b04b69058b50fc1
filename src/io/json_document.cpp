// SPDX-License-Identifier: Apache-2.0
#include <io/json_document.hpp>
#include <io/try.hpp>
#include <utility>

namespace unweight::io {
namespace {

template <class Value>
Result<Value> typed_member(simdjson::dom::object object, std::string_view name, std::string_view what,
                           const char* type) {
  UNWEIGHT_ASSIGN(const simdjson::dom::element element, json_member(object, name, what));
  Value value;
  if (element.get(value) != simdjson::SUCCESS) {
    return fail(ErrorCode::kBadJson, std::string(what) + ": member '" + std::string(name) + "' is not " + type);
  }
  return value;
}

}  // namespace

Result<JsonDocument> JsonDocument::parse(std::string_view text) { return parse(text, false); }

Result<JsonDocument> JsonDocument::parse_padded(std::string_view text) { return parse(text, true); }

Result<JsonDocument> JsonDocument::parse(std::string_view text, bool padded) {
  JsonDocument document;
  document.document_ = std::make_unique<simdjson::dom::document>();
  // The parser's own tables are as large as the document: they go away here, and the document stays.
  simdjson::dom::parser parser;
  const auto error =
      parser.parse_into_document(*document.document_, text.data(), text.size(), !padded).get(document.root_);
  if (error == simdjson::MEMALLOC) return fail(ErrorCode::kOutOfMemory, "out of memory while parsing JSON");
  if (error != simdjson::SUCCESS) {
    return fail(ErrorCode::kBadJson, std::string("not valid JSON: ") + simdjson::error_message(error));
  }
  return document;
}

Result<simdjson::dom::element> json_member(simdjson::dom::object object, std::string_view name, std::string_view what) {
  simdjson::dom::element found;
  bool present = false;
  for (const auto member : object) {
    if (member.key != name) continue;
    if (present) {
      return fail(ErrorCode::kBadJson, std::string(what) + ": member '" + std::string(name) + "' occurs twice");
    }
    found = member.value;
    present = true;
  }
  if (!present) return fail(ErrorCode::kBadJson, std::string(what) + ": member '" + std::string(name) + "' is missing");
  return found;
}

Result<std::string_view> json_string(simdjson::dom::object object, std::string_view name, std::string_view what) {
  return typed_member<std::string_view>(object, name, what, "a string");
}

Result<std::uint64_t> json_number(simdjson::dom::object object, std::string_view name, std::string_view what) {
  return typed_member<std::uint64_t>(object, name, what, "an integer of 64 bits without sign");
}

Result<simdjson::dom::array> json_array(simdjson::dom::object object, std::string_view name, std::string_view what) {
  return typed_member<simdjson::dom::array>(object, name, what, "an array");
}

Result<simdjson::dom::object> json_object(simdjson::dom::object object, std::string_view name, std::string_view what) {
  return typed_member<simdjson::dom::object>(object, name, what, "an object");
}

}  // namespace unweight::io
