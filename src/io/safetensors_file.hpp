// SPDX-License-Identifier: Apache-2.0
//
// Safetensors headers as they lie in files. The parser itself is public: unweight/safetensors.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <io/file.hpp>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>

namespace unweight::io {

/// The first 8 + N bytes of a file, in memory that the JSON parser can work on without another copy.
class SafetensorsHead {
 public:
  /// Checks N against the limit and the file before anything is allocated. Errors name the file.
  [[nodiscard]] static Result<SafetensorsHead> read(const File& file);

  [[nodiscard]] std::string_view bytes() const noexcept { return {padded_.data(), size_}; }
  /// Parses the header, for a file of `file_bytes` bytes. Frees the bytes on the way.
  [[nodiscard]] Result<SafetensorsHeader> parse(std::uint64_t file_bytes) &&;

 private:
  std::string padded_;
  std::size_t size_ = 0;
};

/// Both in one; errors name the file.
[[nodiscard]] Result<SafetensorsHeader> read_safetensors_header(const File& file);

/// Appends `"name":{"dtype":...,"shape":[...],"data_offsets":[...]}`.
void append_tensor_json(std::string& out, const TensorEntry& entry);

}  // namespace unweight::io
