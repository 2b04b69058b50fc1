// SPDX-License-Identifier: Apache-2.0
//
// What a loader has to bring to a device: the tensors of a bundle of either profile, or of a plain checkpoint, and
// where each one's bytes lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/file.hpp>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <vector>

namespace unweight::io {

struct LoadFile {
  std::string path;          ///< relative to the folder
  File file;                 ///< the one that holds the stored bytes
  SafetensorsHeader header;  ///< of the source
};

/// A tensor that is stored.
struct LoadItem {
  std::uint32_t file = 0;    ///< index into LoadSource::files
  std::uint32_t tensor = 0;  ///< index into the file's header
  StoredAs stored = StoredAs::kRaw;
  std::uint64_t offset = 0;  ///< in the file
  std::uint64_t size_bytes = 0;
};

/// A tensor that is another one's twin.
struct LoadAlias {
  std::uint32_t file = 0;
  std::uint32_t tensor = 0;
  std::size_t item = 0;  ///< index into LoadSource::items
};

struct LoadSource {
  bool is_bundle = false;
  Profile profile = Profile::kRuntime;  ///< of a bundle
  std::vector<LoadFile> files;
  std::vector<LoadItem> items;  ///< file by file, in the order of their bytes
  std::vector<LoadAlias> aliases;

  [[nodiscard]] const TensorEntry& tensor(const LoadItem& item) const {
    return files[item.file].header.tensors[item.tensor];
  }
  /// "'file': tensor 'name'", for messages.
  [[nodiscard]] std::string name_of(const LoadItem& item) const;
};

/// Opens a bundle, a folder with safetensors files, or one such file. Reads headers only. Errors: those of
/// decompress_bundle(); kBadCheckpoint where a folder has no safetensors files.
[[nodiscard]] Result<LoadSource> open_load_source(const std::filesystem::path& path);

}  // namespace unweight::io
