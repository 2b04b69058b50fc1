// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <format/layout.hpp>
#include <io/blob_form.hpp>
#include <io/file.hpp>
#include <io/json_document.hpp>
#include <io/json_text.hpp>
#include <io/matrix_view.hpp>
#include <io/plan.hpp>
#include <io/safetensors_file.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <io/weight_index.hpp>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <unweight/version.h>

namespace unweight::io {
namespace {

constexpr std::uint64_t kDefaultMinSegmentBytes = std::uint64_t{256} << 20;
/// Segments per process: enough that the last ones to finish do not leave the others idle for long.
constexpr std::uint64_t kSegmentsPerShare = 4;

std::atomic<std::uint64_t> g_min_segment_bytes{kDefaultMinSegmentBytes};

std::filesystem::path folder_of(std::string_view path) { return std::filesystem::path(path).parent_path(); }

Result<void> refuse_bundle(const Listing& listing) {
  for (const ListedFile& file : listing.files) {
    if (file.path == kManifestPath) {
      return fail(ErrorCode::kBadCheckpoint,
                  "'" + listing.root.native() + "' is compressed already: it has " + std::string(kManifestPath));
    }
  }
  const std::string prefix = std::string(kBundleFolder) + "/";
  const auto is_ours = [&](const std::string& path) { return path == kBundleFolder || path.starts_with(prefix); };
  for (const ListedFile& file : listing.files) {
    if (!is_ours(file.path)) continue;
    return fail(ErrorCode::kBadCheckpoint, "'" + listing.full_path(file.path).native() + "': the name '" +
                                               std::string(kBundleFolder) + "' is reserved for a bundle's own files");
  }
  if (std::any_of(listing.empty_folders.begin(), listing.empty_folders.end(), is_ours)) {
    return fail(ErrorCode::kBadCheckpoint, "'" + listing.root.native() + "' has a folder '" +
                                               std::string(kBundleFolder) +
                                               "', a name reserved for a bundle's own files");
  }
  return {};
}

/// Whether config.json can carry our quantization_config; if not, says so among the warnings.
Result<bool> can_extend_config(Plan& plan, const ListedFile& file) {
  const auto leave = [&](const char* reason) {
    plan.warnings.push_back(std::string(kConfigPath) + " " + reason + "; it is left as it is");
    return false;
  };
  if (file.size_bytes > kMaxJsonBytes) return leave("is larger than 256 MiB");
  UNWEIGHT_ASSIGN(const std::string text, read_text(plan.source.full_path(file.path), kMaxJsonBytes));
  const auto document = JsonDocument::parse(text);
  simdjson::dom::object object;
  if (!document || document->root().get(object) != simdjson::SUCCESS) return leave("is not a valid JSON object");
  for (const auto member : object) {
    if (member.key == "quantization_config") return leave("has a quantization_config already");
  }
  return true;
}

/// Checks an index against the files that are there.
Result<void> check_weight_index(const Plan& plan, const std::string& path) {
  const std::filesystem::path full_path = plan.source.full_path(path);
  UNWEIGHT_ASSIGN(const std::string text, read_text(full_path, kMaxJsonBytes));
  auto index = parse_weight_index(text);
  if (!index) return fail_within("'" + full_path.native() + "'", std::move(index).error());

  std::unordered_map<std::string, std::unordered_set<std::string_view>> tensors_of;
  for (const auto& [tensor, file] : index->weight_map) {
    auto [at, is_new] = tensors_of.try_emplace(file);
    if (is_new) {
      const std::size_t number = plan.source.find((folder_of(path) / file).native());
      if (number == plan.files.size() || plan.files[number].restore != Restore::kSafetensors) {
        return fail(ErrorCode::kBadCheckpoint, "'" + full_path.native() + "' names the file " + quoted_name(file) +
                                                   ", which is missing or not a safetensors file");
      }
      for (const TensorEntry& entry : plan.files[number].header.tensors) at->second.insert(entry.name);
    }
    if (!at->second.contains(tensor)) {
      return fail(ErrorCode::kBadCheckpoint, "'" + full_path.native() + "' says that " + quoted_name(file) +
                                                 " holds tensor " + quoted_name(tensor) + ", but it does not");
    }
  }
  return {};
}

Result<void> read_header_of(Plan& plan, PlannedFile& file, Sha256& fingerprint) {
  UNWEIGHT_ASSIGN(const File source, File::open(plan.source.full_path(file.path)));
  UNWEIGHT_ASSIGN(SafetensorsHead head, SafetensorsHead::read(source));
  fingerprint.update(bytes_of(head.bytes()));
  auto header = std::move(head).parse(file.size_bytes);
  if (!header) return fail_within("'" + source.path().native() + "'", std::move(header).error());
  file.header = *std::move(header);
  file.restore = Restore::kSafetensors;
  for (const auto& entry : file.header.metadata) {
    if (entry.first == kMetadataKey) {
      return fail(ErrorCode::kBadCheckpoint, "'" + source.path().native() +
                                                 "' is compressed already: its metadata has '" +
                                                 std::string(kMetadataKey) + "'");
    }
  }
  return {};
}

/// The most bytes that the header of the bundle's file can need, whichever tensors turn out to be blobs.
std::uint64_t reserved_data_begin(const PlannedFile& file, Profile profile) {
  const std::string empty = make_safetensors_header({}, bundle_metadata(file.header, profile), 1, 0);
  std::uint64_t bytes = empty.size();
  std::uint64_t data_bytes = 0;
  for (const std::uint32_t tensor : file.order) data_bytes += file.header.tensors[tensor].size_bytes();
  std::string text;
  for (const std::uint32_t tensor : file.order) {
    TensorEntry entry = file.header.tensors[tensor];
    const std::uint64_t size_bytes = entry.size_bytes();
    entry.begin = entry.end = data_bytes;
    text.clear();
    append_tensor_json(text, entry);
    std::size_t longest = text.size();
    if (is_blob_candidate(file.header.tensors[tensor])) {
      entry.dtype = Dtype::kU8;
      entry.shape = {size_bytes};
      text.clear();
      append_tensor_json(text, entry);
      longest = std::max(longest, text.size());
    }
    bytes += longest + 1;
  }
  return format::align_up(bytes, format::kAlignment);
}

/// Blobs first, so that they begin at multiples of 128 bytes: as blobs or as they are, tensors of the first group have
/// such sizes.
void order_tensors(PlannedFile& file) {
  const auto group = [&](std::uint32_t tensor) {
    const TensorEntry& entry = file.header.tensors[tensor];
    if (!is_blob_candidate(entry)) return 2;
    return entry.size_bytes() % format::kAlignment == 0 ? 0 : 1;
  };
  for (std::uint32_t i = 0; i < file.header.tensors.size(); ++i) {
    if (!file.originals[i]) file.order.push_back(i);
  }
  std::stable_sort(file.order.begin(), file.order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return group(a) < group(b); });
}

void cut_segments(Plan& plan) {
  std::uint64_t total_bytes = 0;
  for (const PlannedFile& file : plan.files) {
    for (const std::uint32_t tensor : file.order) total_bytes += file.header.tensors[tensor].size_bytes();
  }
  const std::uint64_t target_bytes =
      plan.shard_count == 1
          ? UINT64_MAX
          : std::max<std::uint64_t>(g_min_segment_bytes, total_bytes / (kSegmentsPerShare * plan.shard_count));
  for (std::uint32_t f = 0; f < plan.files.size(); ++f) {
    PlannedFile& file = plan.files[f];
    if (file.restore != Restore::kSafetensors) continue;
    file.segment_begin = static_cast<std::uint32_t>(plan.segments.size());
    const auto add = [&](std::uint32_t begin) {
      const auto number = static_cast<std::uint32_t>(plan.segments.size());
      plan.segments.push_back({f, number - file.segment_begin, begin, begin, number % plan.shard_count, 0});
    };
    add(0);
    for (std::uint32_t i = 0; i < file.order.size(); ++i) {
      if (plan.segments.back().source_bytes >= target_bytes) add(i);
      plan.segments.back().end = i + 1;
      plan.segments.back().source_bytes += file.header.tensors[file.order[i]].size_bytes();
    }
    file.segment_end = static_cast<std::uint32_t>(plan.segments.size());
  }
}

}  // namespace

void testing::set_min_segment_bytes(std::uint64_t bytes) noexcept {
  g_min_segment_bytes = bytes != 0 ? bytes : kDefaultMinSegmentBytes;
}

std::string kept_path(std::string_view path) { return std::string(kKeptFolder) + "/" + std::string(path); }

std::string kept_header_path(std::string_view path) { return kept_path(path) + std::string(kHeaderSuffix); }

std::vector<std::pair<std::string, std::string>> bundle_metadata(const SafetensorsHeader& source, Profile profile) {
  auto metadata = source.metadata;
  metadata.emplace_back(kMetadataKey, std::to_string(container_version(profile)));
  return metadata;
}

Result<Plan> scan_source(const std::filesystem::path& source, std::uint32_t shard_count, bool verify, Profile profile) {
  Plan plan;
  plan.profile = profile;
  plan.shard_count = shard_count;
  plan.verify = verify;
  plan.access = make_folder_access();
  UNWEIGHT_ASSIGN(plan.source, list_checkpoint(source));
  UNWEIGHT_TRY(refuse_bundle(plan.source));

  Sha256 fingerprint;
  const auto add = [&](const std::string& text) { fingerprint.update(bytes_of(text + '\0')); };
  add(UNWEIGHT_VERSION_STRING);
  add(std::to_string(container_version(profile)) + " " + std::to_string(format_version(profile)) + "." +
      std::to_string(format::kVersionMinor));
  add(std::to_string(shard_count) + (verify ? " verified" : " unverified"));
  for (const ListedFile& listed : plan.source.files) {
    add(listed.path);
    add(std::to_string(listed.size_bytes) + " " + std::to_string(listed.modified_ns));
    PlannedFile& file = plan.files.emplace_back();
    file.path = listed.path;
    file.size_bytes = listed.size_bytes;
    if (is_safetensors_name(listed.path)) {
      UNWEIGHT_TRY(read_header_of(plan, file, fingerprint));
    } else if (is_weight_index_name(listed.path)) {
      file.restore = Restore::kKept;
    } else if (listed.path == kConfigPath) {
      UNWEIGHT_ASSIGN(const bool extend, can_extend_config(plan, listed));
      if (extend) file.restore = Restore::kKept;
    }
  }
  for (const std::string& folder : plan.source.empty_folders) add(folder + "/");
  UNWEIGHT_ASSIGN(plan.fingerprint, fingerprint.finish());
  for (const ListedFile& listed : plan.source.files) {
    if (is_weight_index_name(listed.path)) UNWEIGHT_TRY(check_weight_index(plan, listed.path));
  }
  return plan;
}

Result<std::vector<Alias>> find_aliases(const Plan& plan, WorkControl& control) {
  std::unordered_set<std::string> indexed;
  for (const ListedFile& listed : plan.source.files) {
    if (!is_weight_index_name(listed.path)) continue;
    UNWEIGHT_ASSIGN(const std::string text, read_text(plan.source.full_path(listed.path), kMaxJsonBytes));
    UNWEIGHT_ASSIGN(const WeightIndex index, parse_weight_index(text));
    for (const auto& entry : index.weight_map) indexed.insert((folder_of(listed.path) / entry.second).native());
  }
  std::vector<SearchedFile> files;
  for (std::uint32_t i = 0; i < plan.files.size(); ++i) {
    if (plan.files[i].restore != Restore::kSafetensors) continue;
    files.push_back({i, plan.source.full_path(plan.files[i].path), &plan.files[i].header});
  }
  const auto goes_last = [&](const SearchedFile& file) {
    const std::string& path = plan.files[file.file].path;
    return !indexed.contains(path) && !std::filesystem::path(path).filename().native().starts_with("model");
  };
  std::stable_sort(files.begin(), files.end(),
                   [&](const SearchedFile& a, const SearchedFile& b) { return goes_last(a) < goes_last(b); });
  return find_duplicates(files, control);
}

Result<void> complete_plan(Plan& plan, const std::vector<Alias>& aliases) {
  for (PlannedFile& file : plan.files) file.originals.resize(file.header.tensors.size());
  for (const Alias& alias : aliases) plan.files[alias.tensor.file].originals[alias.tensor.tensor] = alias.original;
  for (PlannedFile& file : plan.files) {
    if (file.restore != Restore::kSafetensors) continue;
    order_tensors(file);
    file.data_begin = reserved_data_begin(file, plan.profile);
    if (file.data_begin > 8 + kMaxSafetensorsHeaderBytes) {
      return fail(ErrorCode::kBadCheckpoint,
                  "'" + plan.source.full_path(file.path).native() + "': the compressed file's header could need " +
                      std::to_string(file.data_begin) + " bytes, more than safetensors allows");
    }
  }
  cut_segments(plan);
  return {};
}

}  // namespace unweight::io
