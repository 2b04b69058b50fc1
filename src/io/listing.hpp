// SPDX-License-Identifier: Apache-2.0
//
// The files of a checkpoint folder, in an order that does not depend on the machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

struct ListedFile {
  std::string path;  ///< relative to the listing's root, components separated by '/', UTF-8
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ns = 0;
};

struct Listing {
  std::filesystem::path root;
  bool single_file = false;                ///< the input was one file; root is its folder
  std::vector<ListedFile> files;           ///< in bytewise order of their paths
  std::vector<std::string> empty_folders;  ///< in bytewise order

  [[nodiscard]] std::filesystem::path full_path(std::string_view relative) const { return root / relative; }
  [[nodiscard]] std::uint64_t total_bytes() const noexcept;
  /// Index of a file in `files`, or files.size().
  [[nodiscard]] std::size_t find(std::string_view path) const noexcept;
};

/// Lists a folder recursively, or a single .safetensors file. Symbolic links are followed, to wherever they lead: that
/// is how the Hugging Face cache lays out its snapshots. Refused with kBadCheckpoint: links that are broken or that
/// lead into a folder above themselves, anything that is neither file nor folder, names that are not UTF-8, over a
/// million files. kNotFound when nothing is there, kInvalidArgument for a single file of another kind.
[[nodiscard]] Result<Listing> list_checkpoint(const std::filesystem::path& path);

[[nodiscard]] bool is_safetensors_name(std::string_view path) noexcept;

}  // namespace unweight::io
