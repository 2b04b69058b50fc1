// SPDX-License-Identifier: Apache-2.0
//
// *.safetensors.index.json: which file of a sharded checkpoint holds which tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <utility>
#include <vector>

namespace unweight::io {

struct WeightIndex {
  std::vector<std::pair<std::string, std::string>> weight_map;      ///< tensor, file beside the index; in file order
  std::vector<std::pair<std::string, std::string>> other_metadata;  ///< members of "metadata" but total_size, as JSON
  std::vector<std::pair<std::string, std::string>> other_members;   ///< members beside the two, as JSON
};

[[nodiscard]] bool is_weight_index_name(std::string_view path) noexcept;

/// Parses and validates: file names are relative, without '..'; no tensor occurs twice. Errors: kBadJson,
/// kBadCheckpoint.
[[nodiscard]] Result<WeightIndex> parse_weight_index(std::string_view text);

/// The text of an index in the form that Hugging Face's tools write.
[[nodiscard]] std::string make_weight_index(const WeightIndex& index, std::uint64_t total_size_bytes);

}  // namespace unweight::io
