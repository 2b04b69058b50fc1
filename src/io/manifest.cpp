// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <io/blob_form.hpp>
#include <io/file.hpp>
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/manifest.hpp>
#include <io/paths.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <optional>
#include <unordered_set>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::pair<Restore, std::string_view> kRestoreNames[] = {
    {Restore::kCopied, "copied"}, {Restore::kKept, "kept"}, {Restore::kSafetensors, "safetensors"}};

std::string_view restore_name(Restore restore) {
  for (const auto& [value, name] : kRestoreNames) {
    if (value == restore) return name;
  }
  return {};
}

std::optional<Restore> restore_by_name(std::string_view wanted) {
  for (const auto& [value, name] : kRestoreNames) {
    if (name == wanted) return value;
  }
  return std::nullopt;
}

tl::unexpected<Error> bad(std::string message) { return fail(ErrorCode::kBadBundle, std::move(message)); }

Result<std::string> digest(simdjson::dom::object object, std::string_view name, const std::string& what) {
  UNWEIGHT_ASSIGN(const std::string_view text, json_string(object, name, what));
  if (!is_sha256(text)) return bad(what + ": " + std::string(name) + " is not a SHA-256 in lowercase hexadecimal");
  return std::string(text);
}

Result<std::vector<ManifestAlias>> parse_aliases(simdjson::dom::array array, const std::string& what) {
  std::vector<ManifestAlias> aliases;
  std::unordered_set<std::string_view> tensors;
  for (const simdjson::dom::element element : array) {
    simdjson::dom::object object;
    if (element.get(object) != simdjson::SUCCESS) return bad(what + ": an alias is not an object");
    ManifestAlias alias;
    UNWEIGHT_ASSIGN(const std::string_view tensor, json_string(object, "tensor", what));
    if (!tensors.insert(tensor).second) return bad(what + ": two aliases for tensor " + quoted_name(tensor));
    alias.tensor = tensor;
    UNWEIGHT_ASSIGN(alias.original_file, json_string(object, "original_file", what));
    UNWEIGHT_ASSIGN(alias.original_tensor, json_string(object, "original_tensor", what));
    aliases.push_back(std::move(alias));
  }
  return aliases;
}

Result<void> check_path(std::string_view path, const std::string& what) {
  UNWEIGHT_TRY(check_relative_path(path, what, ErrorCode::kBadBundle));
  if (path == kBundleFolder || path.starts_with(std::string(kBundleFolder) + "/")) {
    return bad(what + " " + quoted_name(path) + " has a reserved name");
  }
  return {};
}

Result<ManifestFile> parse_file(simdjson::dom::element element) {
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return bad("an entry of files is not an object");
  ManifestFile file;
  UNWEIGHT_ASSIGN(file.path, json_string(object, "path", "an entry of files"));
  UNWEIGHT_TRY(check_path(file.path, "the path"));
  const std::string what = "file " + quoted_name(file.path);
  UNWEIGHT_ASSIGN(file.size_bytes, json_number(object, "size", what));
  UNWEIGHT_ASSIGN(file.sha256, digest(object, "sha256", what));
  UNWEIGHT_ASSIGN(const std::string_view restore, json_string(object, "restore", what));
  const auto known = restore_by_name(restore);
  if (!known) return bad(what + ": restore = " + quoted_name(restore) + " is unknown");
  file.restore = *known;
  if (file.restore == Restore::kKept) {
    UNWEIGHT_ASSIGN(file.bundle_sha256, digest(object, "bundle_sha256", what));
  }
  if (file.restore == Restore::kSafetensors) {
    UNWEIGHT_ASSIGN(const simdjson::dom::array aliases, json_array(object, "aliases", what));
    UNWEIGHT_ASSIGN(file.aliases, parse_aliases(aliases, what));
  }
  return file;
}

/// Paths in strictly ascending order, none of them both a file and a folder of another.
Result<void> check_paths(const Manifest& manifest) {
  std::unordered_set<std::string> folders;
  const auto add_folders_above = [&](std::string_view path) {
    for (std::size_t end = path.rfind('/'); end != std::string_view::npos; end = path.rfind('/')) {
      path = path.substr(0, end);
      if (!folders.emplace(path).second) return;  // with all those above it
    }
  };
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    if (i > 0 && manifest.files[i - 1].path >= manifest.files[i].path) {
      return bad("files: " + quoted_name(manifest.files[i].path) + " is out of order or occurs twice");
    }
    add_folders_above(manifest.files[i].path);
  }
  for (std::size_t i = 0; i < manifest.empty_folders.size(); ++i) {
    if (i > 0 && manifest.empty_folders[i - 1] >= manifest.empty_folders[i]) {
      return bad("empty_folders: " + quoted_name(manifest.empty_folders[i]) + " is out of order or occurs twice");
    }
    add_folders_above(manifest.empty_folders[i]);
  }
  for (const std::string& folder : manifest.empty_folders) {
    if (folders.contains(folder) || manifest.find(folder) != manifest.files.size()) {
      return bad("empty_folders: " + quoted_name(folder) + " is not empty");
    }
  }
  for (const ManifestFile& file : manifest.files) {
    if (folders.contains(file.path)) return bad("file " + quoted_name(file.path) + " is also a folder");
  }
  return {};
}

}  // namespace

std::size_t Manifest::find(std::string_view path) const noexcept {
  const auto at = std::lower_bound(files.begin(), files.end(), path,
                                   [](const ManifestFile& file, std::string_view p) { return file.path < p; });
  return at != files.end() && at->path == path ? static_cast<std::size_t>(at - files.begin()) : files.size();
}

std::string make_manifest(const Manifest& manifest) {
  JsonWriter json;
  json.begin_object();
  json.member("container_version", container_version(manifest.profile));
  if (manifest.profile != Profile::kRuntime) json.member("profile", profile_name(manifest.profile));
  json.member("library_version", manifest.library_version);
  json.member("source", manifest.single_file ? "file" : "folder");
  json.key("files");
  json.begin_array();
  for (const ManifestFile& file : manifest.files) {
    json.begin_object();
    json.member("path", file.path);
    json.member("size", file.size_bytes);
    json.member("sha256", file.sha256);
    json.member("restore", restore_name(file.restore));
    if (file.restore == Restore::kKept) json.member("bundle_sha256", file.bundle_sha256);
    if (file.restore == Restore::kSafetensors) {
      json.key("aliases");
      json.begin_array();
      for (const ManifestAlias& alias : file.aliases) {
        json.begin_object(JsonWriter::Style::kLine);
        json.member("tensor", alias.tensor);
        json.member("original_file", alias.original_file);
        json.member("original_tensor", alias.original_tensor);
        json.end_object();
      }
      json.end_array();
    }
    json.end_object();
  }
  json.end_array();
  json.key("empty_folders");
  json.begin_array();
  for (const std::string& folder : manifest.empty_folders) json.string(folder);
  json.end_array();
  json.end_object();
  return json.text() + "\n";
}

Result<std::string> make_manifest_digest(std::string_view manifest_text) {
  UNWEIGHT_ASSIGN(std::string text, sha256_of(bytes_of(manifest_text)));
  return text + "  manifest.json\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  UNWEIGHT_ASSIGN(const JsonDocument document, JsonDocument::parse(text));
  simdjson::dom::object root;
  if (document.root().get(root) != simdjson::SUCCESS) return fail(ErrorCode::kBadJson, "the manifest is no object");
  UNWEIGHT_ASSIGN(const std::uint64_t version, json_number(root, "container_version", "the manifest"));
  Manifest manifest;
  if (version == container_version(Profile::kDistribution)) {
    UNWEIGHT_ASSIGN(const std::string_view profile, json_string(root, "profile", "the manifest"));
    if (profile != profile_name(Profile::kDistribution))
      return bad("profile = " + quoted_name(profile) + " is unknown");
    manifest.profile = Profile::kDistribution;
  } else if (version != container_version(Profile::kRuntime)) {
    return fail(ErrorCode::kUnsupportedVersion, "container_version " + std::to_string(version) +
                                                    " is not supported, this library reads versions 1 and 2");
  }
  UNWEIGHT_ASSIGN(manifest.library_version, json_string(root, "library_version", "the manifest"));
  UNWEIGHT_ASSIGN(const std::string_view source, json_string(root, "source", "the manifest"));
  if (source != "file" && source != "folder") return bad("source = " + quoted_name(source) + " is unknown");
  manifest.single_file = source == "file";
  UNWEIGHT_ASSIGN(const simdjson::dom::array files, json_array(root, "files", "the manifest"));
  for (const simdjson::dom::element element : files) {
    UNWEIGHT_ASSIGN(ManifestFile file, parse_file(element));
    manifest.files.push_back(std::move(file));
  }
  UNWEIGHT_ASSIGN(const simdjson::dom::array folders, json_array(root, "empty_folders", "the manifest"));
  for (const simdjson::dom::element element : folders) {
    std::string_view folder;
    if (element.get(folder) != simdjson::SUCCESS) return bad("an entry of empty_folders is not a string");
    UNWEIGHT_TRY(check_path(folder, "the empty folder"));
    manifest.empty_folders.emplace_back(folder);
  }
  if (manifest.single_file && (manifest.files.size() != 1 || !manifest.empty_folders.empty())) {
    return bad("the source was one file, but " + std::to_string(manifest.files.size()) + " files are listed");
  }
  UNWEIGHT_TRY(check_paths(manifest));
  return manifest;
}

}  // namespace unweight::io
