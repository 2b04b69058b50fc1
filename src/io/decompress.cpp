// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <fmt/format.h>
#include <io/bundle.hpp>
#include <io/file_hash.hpp>
#include <io/paths.hpp>
#include <io/plan_file.hpp>
#include <io/restore.hpp>
#include <io/sha256.hpp>
#include <io/try.hpp>
#include <io/work_folder.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <unweight/checkpoint.hpp>
#include <vector>

namespace unweight {
namespace {

using namespace io;

DecompressReport begin_report(const Bundle& bundle) {
  DecompressReport report;
  report.files = bundle.files.size();
  for (const BundleFile& file : bundle.files) report.bytes += file.manifest.size_bytes;
  return report;
}

/// Restores files into the work folder's result, and keeps a journal of those that are complete.
class Restoration {
 public:
  Restoration(const Bundle& bundle, const WorkFolder& work, WorkControl& control)
      : bundle_(bundle), work_(work), control_(control), finished_(bundle.files.size()), open_(bundle.files.size()) {}

  Result<void> run(unsigned threads) {
    UNWEIGHT_TRY(make_folder(work_.result()));
    UNWEIGHT_ASSIGN(journal_, Journal::open(work_.path("files.journal")));
    for (const std::string& line : journal_.lines()) {
      std::size_t file = 0;
      const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), file);
      if (error == std::errc{} && end == line.data() + line.size() && file < finished_.size()) finished_[file] = true;
    }
    const RestoreSteps steps{[&](std::size_t file) { return is_done(file); },
                             [&](std::size_t file) { return make_consumer(file); },
                             [&](std::size_t file) { return complete(file); }};
    UNWEIGHT_TRY(restore_all(bundle_, threads, steps, control_));
    for (const std::string& folder : bundle_.manifest.empty_folders) {
      UNWEIGHT_TRY(make_folders(work_.result(), folder));
    }
    return sync_tree_folders(work_.result());
  }

 private:
  /// Restored by an earlier run, and still what it has to be.
  Result<bool> is_done(std::size_t file) {
    const ManifestFile& manifest = bundle_.files[file].manifest;
    if (!finished_[file]) return false;
    const auto restored = File::open(work_.result() / manifest.path);
    if (!restored) return false;
    UNWEIGHT_ASSIGN(const std::uint64_t size, restored->size_bytes());
    if (size != manifest.size_bytes) return false;
    UNWEIGHT_ASSIGN(const std::string digest, hash_file(*restored, size, control_, 0));
    return digest == manifest.sha256;
  }

  Result<BytePipe::Consumer> make_consumer(std::size_t file) {
    UNWEIGHT_ASSIGN(const std::filesystem::path path, work_.place(bundle_.files[file].manifest.path));
    UNWEIGHT_ASSIGN(open_[file], File::create(path));
    return [&out = open_[file], offset = std::uint64_t{0}](std::span<const std::byte> bytes) mutable -> Result<void> {
      UNWEIGHT_TRY(out.write(offset, bytes));
      offset += bytes.size();
      return {};
    };
  }

  Result<void> complete(std::size_t file) {
    UNWEIGHT_TRY(open_[file].sync());
    open_[file] = File();
    const std::lock_guard lock(journal_mutex_);
    return journal_.append(std::to_string(file));
  }

  const Bundle& bundle_;
  const WorkFolder& work_;
  WorkControl& control_;
  std::vector<bool> finished_;  ///< read-only once the threads run
  std::vector<File> open_;      ///< by file; each touched by the one thread that restores it
  std::mutex journal_mutex_;
  Journal journal_;
};

/// After publish() was cut off behind the rename: a success if the output is of this bundle.
Result<DecompressReport> complete_publication(const Bundle& bundle, const std::filesystem::path& output) {
  for (const BundleFile& file : bundle.files) {
    const auto restored = status_of(output / file.manifest.path);
    if (!restored || restored->size_bytes != file.manifest.size_bytes) {
      return tl::unexpected(check_absent(output).error());
    }
  }
  UNWEIGHT_ASSIGN(const WorkFolder work, WorkFolder::open(output));
  UNWEIGHT_TRY(work.remove());
  return begin_report(bundle);
}

Result<DecompressReport> decompress(const std::filesystem::path& path, const std::filesystem::path& out,
                                    const DecompressOptions& options) {
  UNWEIGHT_TRY(status_of(path));
  UNWEIGHT_ASSIGN(const std::filesystem::path output, resolve_output(out));
  UNWEIGHT_TRY(check_apart(path, output));
  const bool was_published = WorkFolder::was_published(output);
  if (!was_published) UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(const Bundle bundle, open_bundle(path));
  if (was_published) return complete_publication(bundle, output);
  UNWEIGHT_ASSIGN(const std::string manifest, read_text(bundle.full_path(kManifestPath), kMaxJsonBytes));
  PlanFile plan{"decompress", 1, true, {}, {}};
  UNWEIGHT_ASSIGN(plan.fingerprint, sha256_of(bytes_of(manifest)));

  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const EnteredWorkFolder entered, enter_work_folder(output, "restore.lock"));
  const WorkFolder& work = entered.folder;
  UNWEIGHT_ASSIGN(const std::optional<PlanFile> begun, load_plan_file(work));
  if (begun) {
    UNWEIGHT_TRY(check_same_plan(work, *begun, plan));
  } else {
    UNWEIGHT_TRY(save_plan_file(work, plan));
  }
  Restoration restoration(bundle, work, control);
  UNWEIGHT_TRY(restoration.run(options.threads));
  UNWEIGHT_TRY(work.publish());
  control.report_end();
  return begin_report(bundle);
}

}  // namespace

Result<DecompressReport> decompress_bundle(const std::filesystem::path& bundle, const std::filesystem::path& out,
                                           const DecompressOptions& options) {
  return guarded([&]() -> Result<DecompressReport> {
    const Stopwatch watch;
    UNWEIGHT_ASSIGN(DecompressReport report, decompress(bundle, out, options));
    report.seconds = watch.seconds();
    report.peak_memory_bytes = io::peak_memory_bytes();
    return report;
  });
}

}  // namespace unweight
