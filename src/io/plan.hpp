// SPDX-License-Identifier: Apache-2.0
//
// What a compression will do, decided before it begins: a pure function of the source and the options, so that every
// process and every continued run comes to the same bundle.
#pragma once

#include <cstdint>
#include <filesystem>
#include <io/duplicates.hpp>
#include <io/listing.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>
#include <utility>
#include <vector>

namespace unweight::io {

inline constexpr std::string_view kBundleFolder = "unweight";  ///< of the files that are ours
inline constexpr std::string_view kManifestPath = "unweight/manifest.json";
inline constexpr std::string_view kManifestDigestPath = "unweight/manifest.sha256";
inline constexpr std::string_view kKeptFolder = "unweight/source";  ///< original bytes of changed files
inline constexpr std::string_view kHeaderSuffix = ".header";
inline constexpr std::string_view kConfigPath = "config.json";
inline constexpr std::string_view kMetadataKey = "unweight";              ///< in __metadata__ of bundle files
inline constexpr std::uint64_t kMaxJsonBytes = std::uint64_t{256} << 20;  ///< config, index, manifest

/// Where the bundle keeps the original bytes of `path`, or its header.
[[nodiscard]] std::string kept_path(std::string_view path);
[[nodiscard]] std::string kept_header_path(std::string_view path);

/// How a source file comes back.
enum class Restore : std::uint8_t {
  kCopied,       ///< the bundle has it unchanged
  kKept,         ///< the bundle has it changed, and its original below kKeptFolder
  kSafetensors,  ///< its header is kept, its data is put together from tensors
};

/// A run of tensors that one process stores, in order, into one file of its own.
struct Segment {
  std::uint32_t file = 0;    ///< index into Plan::files
  std::uint32_t number = 0;  ///< within the file; 0 is written into the bundle's file itself
  std::uint32_t begin = 0;   ///< range of PlannedFile::order
  std::uint32_t end = 0;
  std::uint32_t share = 0;  ///< the process that does it
  std::uint64_t source_bytes = 0;
};

struct PlannedFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  Restore restore = Restore::kCopied;

  // Restore::kSafetensors only:
  SafetensorsHeader header;                         ///< of the source
  std::vector<std::optional<TensorRef>> originals;  ///< by tensor: what it is an alias of
  std::vector<std::uint32_t> order;                 ///< the stored tensors, as they follow each other in the bundle
  std::uint64_t data_begin = 0;                     ///< of the bundle's file: room for any header that may result
  std::uint32_t segment_begin = 0;                  ///< range of Plan::segments
  std::uint32_t segment_end = 0;
};

class SourceAccess;

struct Plan {
  Listing source;
  std::shared_ptr<const SourceAccess> access;  ///< reads it
  std::vector<PlannedFile> files;              ///< same order as source.files
  std::vector<Segment> segments;
  std::uint32_t shard_count = 1;
  bool verify = true;
  Profile profile = Profile::kRuntime;
  std::string fingerprint;  ///< SHA-256 over everything that decides the result
  std::vector<std::string> warnings;

  [[nodiscard]] const TensorEntry& tensor(TensorRef ref) const { return files[ref.file].header.tensors[ref.tensor]; }
  /// The process that copies or hashes a file.
  [[nodiscard]] std::uint32_t share_of_file(std::size_t file) const {
    return static_cast<std::uint32_t>(file % shard_count);
  }
};

/// Lists and validates the source and computes the fingerprint. No tensor data is read yet, and the plan is not
/// complete before complete_plan().
[[nodiscard]] Result<Plan> scan_source(const std::filesystem::path& source, std::uint32_t shard_count, bool verify,
                                       Profile profile);

/// Access to a source that is a folder, or one file.
[[nodiscard]] std::shared_ptr<const SourceAccess> make_folder_access();

/// Reads what is needed to find the duplicates. Files that an index names, or whose names begin with "model", go first,
/// so that in a folder with two sets of files the ones that loaders look for hold the data.
[[nodiscard]] Result<std::vector<Alias>> find_aliases(const Plan& plan, WorkControl& control);

/// Orders the stored tensors, reserves the headers, cuts segments.
[[nodiscard]] Result<void> complete_plan(Plan& plan, const std::vector<Alias>& aliases);

/// __metadata__ of a bundle's file.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> bundle_metadata(const SafetensorsHeader& source,
                                                                               Profile profile);

namespace testing {
/// Segments below this size are not cut further; 0 restores the default.
void set_min_segment_bytes(std::uint64_t bytes) noexcept;
}  // namespace testing

}  // namespace unweight::io
