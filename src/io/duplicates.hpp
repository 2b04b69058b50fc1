// SPDX-License-Identifier: Apache-2.0
//
// Tensors stored twice: tied embeddings, or a whole model in two sets of files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/work_control.hpp>
#include <optional>
#include <span>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <vector>

namespace unweight::io {

/// Smaller tensors are stored again rather than searched for.
inline constexpr std::uint64_t kMinAliasBytes = 4096;

/// A tensor by the number of its file and its number within the file's header.
struct TensorRef {
  std::uint32_t file = 0;
  std::uint32_t tensor = 0;

  friend bool operator==(const TensorRef&, const TensorRef&) = default;
};

/// One safetensors file to search.
struct SearchedFile {
  std::uint32_t file = 0;  ///< number for TensorRef
  std::filesystem::path path;
  const SafetensorsHeader* header = nullptr;
};

struct Alias {
  TensorRef tensor;
  TensorRef original;
};

/// Finds every tensor of at least kMinAliasBytes with the dtype, shape and bytes of one before it, in the order of
/// `files` and then of their data. The original is never an alias itself. All bytes are compared, in pieces.
[[nodiscard]] Result<std::vector<Alias>> find_duplicates(std::span<const SearchedFile> files, WorkControl& control);

}  // namespace unweight::io
