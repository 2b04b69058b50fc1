// SPDX-License-Identifier: Apache-2.0
//
// unweight/manifest.json: the files of the source and how each comes back. docs/CONTAINER.md is normative.
#pragma once

#include <cstdint>
#include <io/plan.hpp>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::io {

/// A tensor that is not stored because another has the same dtype, shape and bytes.
struct ManifestAlias {
  std::string tensor;         ///< of the file that the entry belongs to
  std::string original_file;  ///< path of the source file that holds the original
  std::string original_tensor;
};

struct ManifestFile {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::string sha256;
  Restore restore = Restore::kCopied;
  std::string bundle_sha256;           ///< Restore::kKept: of the changed file that stands at `path` in the bundle
  std::vector<ManifestAlias> aliases;  ///< Restore::kSafetensors
};

struct Manifest {
  Profile profile = Profile::kRuntime;
  std::string library_version;
  bool single_file = false;
  std::vector<ManifestFile> files;         ///< in bytewise order of their paths
  std::vector<std::string> empty_folders;  ///< in bytewise order

  /// Index of a file, or files.size().
  [[nodiscard]] std::size_t find(std::string_view path) const noexcept;
};

[[nodiscard]] std::string make_manifest(const Manifest& manifest);

/// The text of unweight/manifest.sha256 for a manifest's text, in the form that sha256sum writes and checks.
[[nodiscard]] Result<std::string> make_manifest_digest(std::string_view manifest_text);

/// Parses and validates: known container version, acceptable and strictly ascending paths, well-formed digests, aliases
/// of files that are there. Errors: kBadJson, kBadBundle, kUnsupportedVersion.
[[nodiscard]] Result<Manifest> parse_manifest(std::string_view text);

}  // namespace unweight::io
