// SPDX-License-Identifier: Apache-2.0
//
// Safetensors headers as they lie in files. The parser itself is public: unweight/safetensors.hpp.
#pragma once

#include <io/file.hpp>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>

namespace unweight::io {

/// The first 8 + N bytes of a file, with N checked against the limit and the file before anything is allocated.
[[nodiscard]] Result<std::string> read_safetensors_head(const File& file);

/// Parses those bytes for a file of `file_bytes` bytes.
[[nodiscard]] Result<SafetensorsHeader> parse_safetensors_head(std::string_view head, std::uint64_t file_bytes);

/// Both in one; errors name the file.
[[nodiscard]] Result<SafetensorsHeader> read_safetensors_header(const File& file);

/// Appends `"name":{"dtype":...,"shape":[...],"data_offsets":[...]}`.
void append_tensor_json(std::string& out, const TensorEntry& entry);

}  // namespace unweight::io
