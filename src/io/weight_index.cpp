// SPDX-License-Identifier: Apache-2.0
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/paths.hpp>
#include <io/try.hpp>
#include <io/weight_index.hpp>
#include <unordered_set>

namespace unweight::io {

bool is_weight_index_name(std::string_view path) noexcept { return path.ends_with(".safetensors.index.json"); }

Result<WeightIndex> parse_weight_index(std::string_view text) {
  UNWEIGHT_ASSIGN(const JsonDocument document, JsonDocument::parse(text));
  simdjson::dom::object root;
  if (document.root().get(root) != simdjson::SUCCESS) return fail(ErrorCode::kBadJson, "the index is not an object");
  WeightIndex index;
  UNWEIGHT_ASSIGN(const simdjson::dom::object weight_map, json_object(root, "weight_map", "the index"));
  std::unordered_set<std::string_view> names;
  for (const auto member : weight_map) {
    std::string_view file;
    if (member.value.get(file) != simdjson::SUCCESS) {
      return fail(ErrorCode::kBadJson,
                  "weight_map: the file of tensor " + quoted_name(member.key) + " is not a string");
    }
    if (!names.insert(member.key).second) {
      return fail(ErrorCode::kBadCheckpoint, "weight_map: tensor " + quoted_name(member.key) + " occurs twice");
    }
    UNWEIGHT_TRY(check_relative_path(file, "weight_map: the file", ErrorCode::kBadCheckpoint));
    index.weight_map.emplace_back(member.key, file);
  }
  for (const auto member : root) {
    if (member.key == "weight_map") continue;
    simdjson::dom::object metadata;
    if (member.key == "metadata" && member.value.get(metadata) == simdjson::SUCCESS) {
      for (const auto entry : metadata) {
        if (entry.key != "total_size") index.other_metadata.emplace_back(entry.key, simdjson::minify(entry.value));
      }
    } else if (member.key != "metadata") {
      index.other_members.emplace_back(member.key, simdjson::minify(member.value));
    }
  }
  return index;
}

std::string make_weight_index(const WeightIndex& index, std::uint64_t total_size_bytes) {
  JsonWriter json;
  json.begin_object();
  json.key("metadata");
  json.begin_object();
  for (const auto& [name, value] : index.other_metadata) {
    json.key(name);
    json.raw(value);
  }
  json.member("total_size", total_size_bytes);
  json.end_object();
  for (const auto& [name, value] : index.other_members) {
    json.key(name);
    json.raw(value);
  }
  json.key("weight_map");
  json.begin_object();
  for (const auto& [tensor, file] : index.weight_map) json.member(tensor, file);
  json.end_object();
  json.end_object();
  return json.text() + "\n";
}

}  // namespace unweight::io
