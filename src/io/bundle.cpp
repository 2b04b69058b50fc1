// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <io/blob_form.hpp>
#include <io/bundle.hpp>
#include <io/file.hpp>
#include <io/json_text.hpp>
#include <io/matrix_view.hpp>
#include <io/safetensors_file.hpp>
#include <io/try.hpp>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::uint32_t kMissing = UINT32_MAX;

using TensorNumbers = std::unordered_map<std::string_view, std::uint32_t>;

TensorNumbers number_tensors(const SafetensorsHeader& header) {
  TensorNumbers numbers;
  numbers.reserve(header.tensors.size());
  for (std::uint32_t i = 0; i < header.tensors.size(); ++i) numbers.emplace(header.tensors[i].name, i);
  return numbers;
}

tl::unexpected<Error> bad(const std::filesystem::path& path, std::string message) {
  return fail(ErrorCode::kBadBundle, "'" + path.native() + "': " + std::move(message));
}

/// How the bundle's entry stands for the source's, if it can.
Result<StoredAs> stored_as(const std::filesystem::path& path, const TensorEntry& source, const TensorEntry& stored) {
  if (stored.dtype == source.dtype && stored.shape == source.shape) return StoredAs::kRaw;
  if (is_blob_candidate(source) && stored.dtype == Dtype::kU8 && stored.shape.size() == 1) return StoredAs::kBlob;
  return bad(path, "tensor " + quoted_name(source.name) + " is stored as neither a blob nor itself");
}

class Opener {
 public:
  explicit Opener(Bundle& bundle) : bundle_(bundle) {}

  /// Source header and stored tensors; aliases stay open.
  Result<void> read_headers(BundleFile& file) {
    const std::filesystem::path head_path = bundle_.full_path(kept_header_path(file.manifest.path));
    UNWEIGHT_ASSIGN(const File head_file, File::open(head_path));
    UNWEIGHT_ASSIGN(SafetensorsHead head, SafetensorsHead::read(head_file));
    auto header = std::move(head).parse(file.manifest.size_bytes);
    if (!header) return fail_within("'" + head_path.native() + "'", std::move(header).error());
    file.header = *std::move(header);
    file.tensors.resize(file.header.tensors.size());

    const std::filesystem::path path = bundle_.full_path(file.manifest.path);
    UNWEIGHT_ASSIGN(const File data, File::open(path));
    UNWEIGHT_ASSIGN(const SafetensorsHeader stored, read_safetensors_header(data));
    const std::pair<std::string, std::string> mark{kMetadataKey,
                                                   std::to_string(container_version(bundle_.manifest.profile))};
    if (std::find(stored.metadata.begin(), stored.metadata.end(), mark) == stored.metadata.end()) {
      return bad(path, "its metadata lacks \"unweight\": \"" + mark.second + "\"");
    }
    std::unordered_set<std::string_view> is_alias;
    for (const ManifestAlias& alias : file.manifest.aliases) is_alias.insert(alias.tensor);
    const TensorNumbers stored_numbers = number_tensors(stored);
    std::size_t found = 0;
    for (std::uint32_t i = 0; i < file.tensors.size(); ++i) {
      const TensorEntry& source = file.header.tensors[i];
      LocatedTensor& located = file.tensors[i];
      if (is_alias.contains(source.name)) {
        located.stored = StoredAs::kAlias;
        located.file = kMissing;
        continue;
      }
      const auto at = stored_numbers.find(source.name);
      if (at == stored_numbers.end()) return bad(path, "tensor " + quoted_name(source.name) + " is missing");
      const TensorEntry& entry = stored.tensors[at->second];
      UNWEIGHT_ASSIGN(located.stored, stored_as(path, source, entry));
      located.file = static_cast<std::uint32_t>(&file - bundle_.files.data());
      located.offset = stored.data_begin + entry.begin;
      located.size_bytes = entry.size_bytes();
      ++found;
    }
    if (found != stored.tensors.size()) return bad(path, "it has tensors that the source does not have");
    return {};
  }

  Result<void> resolve_aliases(BundleFile& file) {
    if (file.manifest.aliases.empty()) return {};
    const std::filesystem::path manifest_path = bundle_.full_path(kManifestPath);
    const TensorNumbers numbers = number_tensors(file.header);
    for (const ManifestAlias& alias : file.manifest.aliases) {
      const std::string what = "the alias " + quoted_name(alias.tensor) + " of file " + quoted_name(file.manifest.path);
      const auto at = numbers.find(alias.tensor);
      if (at == numbers.end()) return bad(manifest_path, what + " is no tensor of that file");
      UNWEIGHT_ASSIGN(const TensorRef original, find_original(alias, manifest_path, what));
      const TensorEntry& entry = file.header.tensors[at->second];
      const TensorEntry& target = bundle_.files[original.file].header.tensors[original.tensor];
      if (target.dtype != entry.dtype || target.shape != entry.shape) {
        return bad(manifest_path, what + " has another dtype or shape than its original");
      }
      if (bundle_.files[original.file].tensors[original.tensor].stored == StoredAs::kAlias) {
        return bad(manifest_path, what + " has an alias as its original");
      }
      file.tensors[at->second].file = original.file;
      file.tensors[at->second].tensor = original.tensor;
    }
    return {};
  }

 private:
  Result<TensorRef> find_original(const ManifestAlias& alias, const std::filesystem::path& manifest_path,
                                  const std::string& what) {
    auto cached = numbers_of_.find(alias.original_file);
    if (cached == numbers_of_.end()) {
      const auto file = std::find_if(bundle_.files.begin(), bundle_.files.end(),
                                     [&](const BundleFile& f) { return f.manifest.path == alias.original_file; });
      if (file == bundle_.files.end() || file->manifest.restore != Restore::kSafetensors) {
        return bad(manifest_path, what + " names " + quoted_name(alias.original_file) + ", no safetensors file");
      }
      const auto number = static_cast<std::uint32_t>(file - bundle_.files.begin());
      cached = numbers_of_.emplace(alias.original_file, std::pair(number, number_tensors(file->header))).first;
    }
    const auto& [file, numbers] = cached->second;
    const auto at = numbers.find(alias.original_tensor);
    if (at == numbers.end()) {
      return bad(manifest_path, what + " names " + quoted_name(alias.original_tensor) + ", which is no tensor of " +
                                    quoted_name(alias.original_file));
    }
    return TensorRef{file, at->second};
  }

  Bundle& bundle_;
  std::unordered_map<std::string, std::pair<std::uint32_t, TensorNumbers>> numbers_of_;
};

}  // namespace

bool is_bundle(const std::filesystem::path& path) { return entry_exists(path / kManifestPath); }

Result<Bundle> open_bundle(const std::filesystem::path& path) {
  UNWEIGHT_ASSIGN(const FileStatus status, status_of(path));
  if (status.kind != FileStatus::Kind::kFolder || !is_bundle(path)) {
    return fail(ErrorCode::kBadBundle,
                "'" + path.native() + "' is not a bundle: it has no " + std::string(kManifestPath));
  }
  Bundle bundle;
  bundle.root = path;
  const std::filesystem::path manifest_path = bundle.full_path(kManifestPath);
  UNWEIGHT_ASSIGN(const std::string text, read_text(manifest_path, kMaxJsonBytes));
  UNWEIGHT_ASSIGN(const std::string digest, make_manifest_digest(text));
  UNWEIGHT_ASSIGN(const std::string recorded, read_text(bundle.full_path(kManifestDigestPath), kMaxJsonBytes));
  if (digest != recorded) return bad(manifest_path, "it does not match " + std::string(kManifestDigestPath));
  auto manifest = parse_manifest(text);
  if (!manifest) return fail_within("'" + manifest_path.native() + "'", std::move(manifest).error());
  bundle.manifest = *std::move(manifest);
  bundle.files.resize(bundle.manifest.files.size());
  for (std::size_t i = 0; i < bundle.files.size(); ++i) {
    bundle.files[i].manifest = std::move(bundle.manifest.files[i]);
  }
  bundle.manifest.files.clear();

  Opener opener(bundle);
  for (BundleFile& file : bundle.files) {
    if (file.manifest.restore == Restore::kSafetensors) UNWEIGHT_TRY(opener.read_headers(file));
  }
  for (BundleFile& file : bundle.files) UNWEIGHT_TRY(opener.resolve_aliases(file));
  return bundle;
}

}  // namespace unweight::io
