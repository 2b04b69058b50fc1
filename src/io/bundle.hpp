// SPDX-License-Identifier: Apache-2.0
//
// A bundle opened for reading: manifest and headers checked against each other, every tensor of the source located.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/manifest.hpp>
#include <string>
#include <string_view>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <vector>

namespace unweight::io {

/// Where a source tensor's bytes are in the bundle.
struct LocatedTensor {
  StoredAs stored = StoredAs::kRaw;  ///< kAlias: `file` and `tensor` name the original in the source, not an alias
  std::uint32_t file = 0;            ///< index into Bundle::files
  std::uint32_t tensor = 0;          ///< kAlias only: index into that file's source header
  std::uint64_t offset = 0;          ///< from the start of the bundle's file; not for kAlias
  std::uint64_t size_bytes = 0;      ///< stored bytes; 0 for kAlias
};

struct BundleFile {
  ManifestFile manifest;
  SafetensorsHeader header;            ///< Restore::kSafetensors: of the source
  std::vector<LocatedTensor> tensors;  ///< Restore::kSafetensors: by index into header.tensors
};

struct Bundle {
  std::filesystem::path root;
  Manifest manifest;  ///< its `files` moved into the entries below
  std::vector<BundleFile> files;

  [[nodiscard]] std::filesystem::path full_path(std::string_view relative) const { return root / relative; }
  /// Follows an alias.
  [[nodiscard]] const LocatedTensor& resolve(const LocatedTensor& tensor) const noexcept {
    return tensor.stored == StoredAs::kAlias ? files[tensor.file].tensors[tensor.tensor] : tensor;
  }
};

/// Whether the folder has a manifest.
[[nodiscard]] bool is_bundle(const std::filesystem::path& path);

/// Reads manifest and headers; no tensor data. Errors name the file.
[[nodiscard]] Result<Bundle> open_bundle(const std::filesystem::path& path);

}  // namespace unweight::io
