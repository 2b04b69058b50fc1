// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <codec/parallel.hpp>
#include <cstring>
#include <fmt/format.h>
#include <format/layout.hpp>
#include <io/assembly.hpp>
#include <io/blob_form.hpp>
#include <io/json_text.hpp>
#include <io/manifest.hpp>
#include <io/safetensors_file.hpp>
#include <io/sha256.hpp>
#include <io/share_run.hpp>
#include <io/source_access.hpp>
#include <io/try.hpp>
#include <io/weight_index.hpp>
#include <optional>
#include <set>
#include <unordered_map>
#include <unweight/version.h>
#include <utility>

namespace unweight::io {
namespace {

constexpr std::string_view kJoiningMark = "joining";

std::uint64_t stored_bytes(const std::vector<StoredTensor>& records) {
  std::uint64_t bytes = 0;
  for (const StoredTensor& stored : records) bytes += stored.size_bytes;
  return bytes;
}

/// The quantization_config that tells loaders what they look at.
std::string quantization_config(Profile profile) {
  JsonWriter json;
  json.begin_object(JsonWriter::Style::kLine);
  json.member("quant_method", "unweight");
  json.member("format_version", format_version(profile));
  json.member("container_version", container_version(profile));
  if (profile != Profile::kRuntime) json.member("profile", profile_name(profile));
  json.member("manifest", kManifestPath);
  json.end_object();
  return json.text();
}

class Assembly {
 public:
  Assembly(const Plan& plan, const WorkFolder& work, unsigned threads, WorkControl& control)
      : plan_(plan), work_(work), threads_(codec::resolve_threads(threads)), control_(control) {}

  Result<void> run(bool check_bytes, CompressReport& report) {
    UNWEIGHT_TRY(read_records(check_bytes));
    UNWEIGHT_TRY(check_source());
    for (std::size_t s = 0; s < plan_.segments.size(); ++s) {
      add_to_report(plan_, plan_.segments[s], records_[s], report);
    }
    if (plan_.shard_count > 1) {
      UNWEIGHT_TRY(write_text_atomically(work_.path(kJoiningMark), work_.path("joining.tmp"), ""));
    }
    const auto complete_file = [&](std::size_t file) -> Result<void> {
      if (plan_.files[file].restore != Restore::kSafetensors) return {};
      UNWEIGHT_TRY(join(plan_.files[file]));
      return write_header(plan_.files[file]);
    };
    UNWEIGHT_TRY(in_parallel(plan_.files.size(), complete_file));
    UNWEIGHT_TRY(write_documents());
    UNWEIGHT_TRY(sync_tree_folders(work_.result()));
    UNWEIGHT_ASSIGN(const Listing listing, list_checkpoint(work_.result()));
    report.bundle_bytes = listing.total_bytes();
    return work_.publish();
  }

 private:
  Result<void> in_parallel(std::size_t count, const std::function<Result<void>(std::size_t)>& body) {
    std::atomic<std::size_t> next{0};
    run_workers(std::min<unsigned>(threads_, 4), control_, [&](unsigned) -> Result<void> {
      for (std::size_t i = next++; i < count && !control_.stopped(); i = next++) UNWEIGHT_TRY(body(i));
      return {};
    });
    return control_.outcome();
  }

  /// The source must be what was planned, to the end.
  Result<void> check_source() {
    UNWEIGHT_ASSIGN(const std::string now, plan_.access->fingerprint(plan_));
    if (now == plan_.fingerprint) return {};
    const std::filesystem::path path = plan_.source.single_file ? plan_.access->path(plan_, 0) : plan_.source.root;
    return fail(ErrorCode::kSourceChanged, "'" + path.native() + "' changed while it was compressed; remove '" +
                                               work_.root().native() + "' to start again");
  }

  // ---- what the shares have left
  // --------------------------------------------------------------------------------------

  Result<void> read_records(bool check_bytes) {
    records_.resize(plan_.segments.size());
    for (std::size_t s = 0; s < plan_.segments.size(); ++s) {
      UNWEIGHT_ASSIGN(records_[s], read_segment_journal(plan_, work_, plan_.segments[s]));
    }
    UNWEIGHT_ASSIGN(digests_, read_file_digests(plan_, work_));
    for (const auto& records : records_) journal_bytes_.push_back(stored_bytes(records));
    if (check_bytes) {
      UNWEIGHT_TRY(in_parallel(plan_.segments.size(), [&](std::size_t s) { return check_segment(s); }));
    }
    std::set<std::uint32_t> missing;
    for (std::size_t s = 0; s < plan_.segments.size(); ++s) {
      const Segment& segment = plan_.segments[s];
      if (records_[s].size() != segment.end - segment.begin) missing.insert(segment.share);
    }
    for (std::size_t file = 0; file < plan_.files.size(); ++file) {
      const PlannedFile& planned = plan_.files[file];
      const bool copied = planned.restore != Restore::kCopied || entry_exists(work_.result() / planned.path);
      if (!digests_[file] || !copied) missing.insert(plan_.share_of_file(file));
    }
    if (missing.empty()) return {};
    return fail(ErrorCode::kBadCheckpoint, fmt::format("not done yet: share{} {} of {}", missing.size() > 1 ? "s" : "",
                                                       fmt::join(missing, ", "), plan_.shard_count));
  }

  /// Keeps the records whose bytes are there: in the segment's own file, or already joined.
  Result<void> check_segment(std::size_t s) {
    const Segment& segment = plan_.segments[s];
    SegmentPlace place = segment_place(plan_, work_, segment);
    if (segment.number > 0 && !entry_exists(place.data)) {
      if (!joining_has_begun(work_)) {
        records_[s].clear();
        return {};
      }
      place.data = work_.result() / plan_.files[segment.file].path;
      place.begin = joined_begin(segment);
    }
    UNWEIGHT_ASSIGN(const std::size_t intact, count_intact(place.data, place.begin, records_[s], control_));
    records_[s].resize(intact);
    control_.add_bytes(segment.source_bytes);
    return {};
  }

  /// Where a segment begins in the bundle's file.
  std::uint64_t joined_begin(const Segment& segment) const {
    const PlannedFile& file = plan_.files[segment.file];
    std::uint64_t begin = file.data_begin;
    for (std::uint32_t s = file.segment_begin; s < file.segment_begin + segment.number; ++s) {
      begin += journal_bytes_[s];
    }
    return begin;
  }

  // ---- files --------------------------------------------------------------------------------------------------------

  /// Appends the parts that are still files of their own. Can be repeated at any point: a part is removed only when it
  /// is safe in the bundle's file.
  Result<void> join(const PlannedFile& file) {
    UNWEIGHT_ASSIGN(const std::filesystem::path path, work_.place(file.path));
    UNWEIGHT_ASSIGN(const File joined, File::open_or_create(path));
    std::uint64_t end = file.data_begin;
    for (std::uint32_t s = file.segment_begin; s < file.segment_end; ++s) {
      const SegmentPlace place = segment_place(plan_, work_, plan_.segments[s]);
      const std::uint64_t bytes = stored_bytes(records_[s]);
      if (plan_.segments[s].number > 0 && entry_exists(place.data)) {
        UNWEIGHT_ASSIGN(const File part, File::open(place.data));
        UNWEIGHT_TRY(joined.truncate(end));
        UNWEIGHT_TRY(copy_range(part, 0, joined, end, bytes));
        UNWEIGHT_TRY(joined.sync());
        UNWEIGHT_TRY(remove_file(place.data));
      }
      end += bytes;
      control_.tick();
      UNWEIGHT_TRY(control_.outcome());
    }
    return joined.truncate(end);
  }

  Result<void> write_header(const PlannedFile& file) {
    std::vector<TensorEntry> entries;
    std::uint64_t offset = 0;
    for (std::uint32_t s = file.segment_begin; s < file.segment_end; ++s) {
      for (std::size_t i = 0; i < records_[s].size(); ++i) {
        const StoredTensor& stored = records_[s][i];
        TensorEntry& entry = entries.emplace_back(file.header.tensors[file.order[plan_.segments[s].begin + i]]);
        if (stored.is_blob) {
          entry.dtype = Dtype::kU8;
          entry.shape = {stored.size_bytes};
        }
        entry.begin = offset;
        entry.end = offset += stored.size_bytes;
      }
    }
    const std::string header = make_safetensors_header(entries, bundle_metadata(file.header, plan_.profile),
                                                       format::kAlignment, file.data_begin);
    if (header.size() != file.data_begin) {
      return fail(ErrorCode::kInternal, fmt::format("'{}': the header needs {} bytes, {} were reserved", file.path,
                                                    header.size(), file.data_begin));
    }
    UNWEIGHT_ASSIGN(const File out, File::open_or_create(work_.result() / file.path));
    UNWEIGHT_TRY(out.write(0, bytes_of(header)));
    UNWEIGHT_TRY(out.sync());

    const auto number = static_cast<std::size_t>(&file - plan_.files.data());
    UNWEIGHT_ASSIGN(const std::string head, plan_.access->head(plan_, number));
    UNWEIGHT_ASSIGN(const std::filesystem::path target, work_.place(kept_header_path(file.path)));
    return write_text_atomically(target, work_.path(fmt::format("header-{}.tmp", number)), head);
  }

  // ---- documents ----------------------------------------------------------------------------------------------------

  Result<void> write_documents() {
    Manifest manifest;
    manifest.profile = plan_.profile;
    manifest.library_version = UNWEIGHT_VERSION_STRING;
    manifest.single_file = plan_.source.single_file;
    manifest.empty_folders = plan_.source.empty_folders;
    for (std::size_t i = 0; i < plan_.files.size(); ++i) {
      const PlannedFile& file = plan_.files[i];
      ManifestFile& entry = manifest.files.emplace_back();
      entry.path = file.path;
      entry.size_bytes = file.size_bytes;
      entry.sha256 = *digests_[i];
      entry.restore = file.restore;
      if (file.restore == Restore::kKept) {
        UNWEIGHT_ASSIGN(entry.bundle_sha256, write_changed(file));
      }
      for (std::size_t t = 0; t < file.originals.size(); ++t) {
        if (!file.originals[t]) continue;
        const TensorRef original = *file.originals[t];
        entry.aliases.push_back(
            {file.header.tensors[t].name, plan_.files[original.file].path, plan_.tensor(original).name});
      }
    }
    const std::string text = make_manifest(manifest);
    UNWEIGHT_TRY(work_.write_result(kManifestPath, text));
    UNWEIGHT_ASSIGN(const std::string digest, make_manifest_digest(text));
    return work_.write_result(kManifestDigestPath, digest);
  }

  /// Keeps the original of config.json or an index and writes the bundle's own. Returns the digest of the latter.
  Result<std::string> write_changed(const PlannedFile& file) {
    UNWEIGHT_ASSIGN(
        const std::string original,
        read_text(plan_.access->path(plan_, static_cast<std::size_t>(&file - plan_.files.data())), kMaxJsonBytes));
    UNWEIGHT_TRY(work_.write_result(kept_path(file.path), original));
    std::string changed;
    if (is_weight_index_name(file.path)) {
      UNWEIGHT_ASSIGN(changed, make_bundle_index(file, original));
    } else {
      changed = insert_first_member(original, "quantization_config", quantization_config(plan_.profile));
    }
    UNWEIGHT_TRY(work_.write_result(file.path, changed));
    return sha256_of(bytes_of(changed));
  }

  Result<std::string> make_bundle_index(const PlannedFile& file, const std::string& original) {
    UNWEIGHT_ASSIGN(WeightIndex index, parse_weight_index(original));
    const std::filesystem::path folder = std::filesystem::path(file.path).parent_path();
    std::unordered_map<std::string, std::unordered_map<std::string_view, std::uint64_t>> sizes_of;
    std::uint64_t total_bytes = 0;
    std::vector<std::pair<std::string, std::string>> stored;
    for (auto& [tensor, name] : index.weight_map) {
      auto sizes = sizes_of.find(name);
      if (sizes == sizes_of.end()) {
        sizes = sizes_of.emplace(name, sizes_in(plan_.source.find((folder / name).native()))).first;
      }
      const auto size = sizes->second.find(tensor);
      if (size == sizes->second.end()) continue;  // an alias
      total_bytes += size->second;
      stored.emplace_back(std::move(tensor), std::move(name));
    }
    index.weight_map = std::move(stored);
    return make_weight_index(index, total_bytes);
  }

  /// Stored bytes by name of the tensors that a file of the bundle holds.
  std::unordered_map<std::string_view, std::uint64_t> sizes_in(std::size_t number) const {
    std::unordered_map<std::string_view, std::uint64_t> sizes;
    const PlannedFile& file = plan_.files.at(number);
    for (std::uint32_t s = file.segment_begin; s < file.segment_end; ++s) {
      for (std::size_t i = 0; i < records_[s].size(); ++i) {
        const std::uint32_t tensor = file.order[plan_.segments[s].begin + i];
        sizes.emplace(file.header.tensors[tensor].name, records_[s][i].size_bytes);
      }
    }
    return sizes;
  }

  const Plan& plan_;
  const WorkFolder& work_;
  const unsigned threads_;
  WorkControl& control_;
  std::vector<std::vector<StoredTensor>> records_;   ///< by segment
  std::vector<std::uint64_t> journal_bytes_;         ///< by segment: what its journal records
  std::vector<std::optional<std::string>> digests_;  ///< by file
};

}  // namespace

bool joining_has_begun(const WorkFolder& work) { return entry_exists(work.path(kJoiningMark)); }

Result<void> assemble(const Plan& plan, const WorkFolder& work, bool check_bytes, unsigned threads,
                      WorkControl& control, CompressReport& report) {
  return Assembly(plan, work, threads, control).run(check_bytes, report);
}

void add_to_report(const Plan& plan, const Segment& segment, const std::vector<StoredTensor>& records,
                   CompressReport& report) {
  const PlannedFile& file = plan.files[segment.file];
  for (std::size_t i = 0; i < records.size(); ++i) {
    ++report.tensors;
    if (!records[i].is_blob) {
      ++report.tensors_raw;
      continue;
    }
    ++report.tensors_blob;
    report.blob_value_bytes += file.header.tensors[file.order[segment.begin + i]].size_bytes();
    report.blob_bytes += records[i].size_bytes;
  }
}

}  // namespace unweight::io
