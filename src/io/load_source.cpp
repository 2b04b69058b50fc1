// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <io/bundle.hpp>
#include <io/json_text.hpp>
#include <io/load_source.hpp>
#include <io/safetensors_file.hpp>
#include <io/try.hpp>
#include <map>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::string_view kSuffix = ".safetensors";

void sort_by_place(LoadSource& source) {
  std::sort(source.items.begin(), source.items.end(), [](const LoadItem& a, const LoadItem& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
}

Result<LoadSource> open_bundle_source(const std::filesystem::path& path) {
  UNWEIGHT_ASSIGN(Bundle bundle, open_bundle(path));
  LoadSource source;
  source.is_bundle = true;
  source.profile = bundle.manifest.profile;
  std::vector<std::uint32_t> file_number(bundle.files.size());
  for (std::size_t f = 0; f < bundle.files.size(); ++f) {
    BundleFile& from = bundle.files[f];
    if (from.manifest.restore != Restore::kSafetensors) continue;
    file_number[f] = static_cast<std::uint32_t>(source.files.size());
    UNWEIGHT_ASSIGN(File file, File::open(bundle.full_path(from.manifest.path)));
    source.files.push_back({from.manifest.path, std::move(file), std::move(from.header)});
    for (std::uint32_t t = 0; t < from.tensors.size(); ++t) {
      const LocatedTensor& at = from.tensors[t];
      if (at.stored == StoredAs::kAlias) continue;
      source.items.push_back({file_number[f], t, at.stored, at.offset, at.size_bytes});
    }
  }
  sort_by_place(source);
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::size_t> item_of;
  for (std::size_t i = 0; i < source.items.size(); ++i) {
    item_of[{source.items[i].file, source.items[i].tensor}] = i;
  }
  for (std::size_t f = 0; f < bundle.files.size(); ++f) {
    const auto& tensors = bundle.files[f].tensors;
    for (std::uint32_t t = 0; t < tensors.size(); ++t) {
      if (tensors[t].stored != StoredAs::kAlias) continue;
      source.aliases.push_back({file_number[f], t, item_of.at({file_number[tensors[t].file], tensors[t].tensor})});
    }
  }
  return source;
}

Result<void> add_plain_file(LoadSource& source, const std::filesystem::path& path, std::string name) {
  UNWEIGHT_ASSIGN(File file, File::open(path));
  UNWEIGHT_ASSIGN(SafetensorsHeader header, read_safetensors_header(file));
  const auto number = static_cast<std::uint32_t>(source.files.size());
  for (std::uint32_t t = 0; t < header.tensors.size(); ++t) {
    const TensorEntry& tensor = header.tensors[t];
    source.items.push_back({number, t, StoredAs::kRaw, header.data_begin + tensor.begin, tensor.size_bytes()});
  }
  source.files.push_back({std::move(name), std::move(file), std::move(header)});
  return {};
}

}  // namespace

std::string LoadSource::name_of(const LoadItem& item) const {
  return "'" + files[item.file].file.path().native() + "': tensor " + quoted_name(tensor(item).name);
}

Result<LoadSource> open_load_source(const std::filesystem::path& path) {
  if (is_bundle(path)) return open_bundle_source(path);
  LoadSource source;
  UNWEIGHT_ASSIGN(const FileStatus status, status_of(path));
  if (status.kind == FileStatus::Kind::kRegular) {
    UNWEIGHT_TRY(add_plain_file(source, path, path.filename().native()));
  } else {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      std::string name = entry.path().filename().native();
      if (name.ends_with(kSuffix)) names.push_back(std::move(name));
    }
    if (names.empty()) {
      return fail(ErrorCode::kBadCheckpoint,
                  "'" + path.native() + "' is neither a bundle nor a folder with safetensors files");
    }
    std::sort(names.begin(), names.end());
    for (std::string& name : names) UNWEIGHT_TRY(add_plain_file(source, path / name, name));
  }
  sort_by_place(source);
  return source;
}

}  // namespace unweight::io
