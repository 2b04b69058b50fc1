// SPDX-License-Identifier: Apache-2.0
#include <deque>
#include <fmt/format.h>
#include <io/assembly.hpp>
#include <io/bundle.hpp>
#include <io/paths.hpp>
#include <io/plan_file.hpp>
#include <io/share_run.hpp>
#include <io/try.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight {
namespace {

using namespace io;

constexpr std::uint32_t kMaxShards = 65536;

std::string share_lock_name(std::uint32_t share) { return fmt::format("share-{}.lock", share); }

/// Completes `plan` with the duplicates: those that the work folder knows, or newly found ones that it then remembers.
Result<void> settle_plan(Plan& plan, const WorkFolder& work, WorkControl& control) {
  // One process looks for duplicates, the others wait and read what it found.
  UNWEIGHT_ASSIGN(const FileLock lock, FileLock::acquire(work.lock_path(), control));
  PlanFile wanted{"compress", plan.shard_count, plan.verify, plan.fingerprint, {}};
  UNWEIGHT_ASSIGN(const std::optional<PlanFile> found, load_plan_file(work));
  if (found) {
    UNWEIGHT_TRY(check_same_plan(work, *found, wanted));
    return complete_plan(plan, found->aliases);
  }
  UNWEIGHT_ASSIGN(wanted.aliases, find_aliases(plan, control));
  UNWEIGHT_TRY(complete_plan(plan, wanted.aliases));
  return save_plan_file(work, wanted);
}

CompressReport begin_report(const Plan& plan) {
  CompressReport report;
  report.source_bytes = plan.source.total_bytes();
  report.verified = plan.verify;
  report.warnings = plan.warnings;
  return report;
}

void add_aliases(const Plan& plan, CompressReport& report) {
  for (const PlannedFile& file : plan.files) {
    for (const auto& original : file.originals) {
      if (!original) continue;
      ++report.tensors;
      ++report.tensors_alias;
    }
  }
}

/// After publish() was cut off behind the rename: the bundle is complete, only the work folder is left to remove. A
/// success if the bundle is of this source.
Result<CompressReport> complete_publication(const std::filesystem::path& source, const std::filesystem::path& output,
                                            const CompressOptions& options) {
  UNWEIGHT_ASSIGN(const Plan plan, scan_source(source, options.shard_count, options.verify));
  const auto bundle = open_bundle(output);
  bool same = bundle && bundle->files.size() == plan.files.size();
  CompressReport report = begin_report(plan);
  for (std::size_t i = 0; same && i < bundle->files.size(); ++i) {
    const BundleFile& file = bundle->files[i];
    same = file.manifest.path == plan.files[i].path && file.manifest.size_bytes == plan.files[i].size_bytes;
    for (std::size_t t = 0; t < file.tensors.size(); ++t) {
      ++report.tensors;
      const LocatedTensor& tensor = file.tensors[t];
      switch (tensor.stored) {
        case StoredAs::kRaw:
          ++report.tensors_raw;
          break;
        case StoredAs::kAlias:
          ++report.tensors_alias;
          break;
        case StoredAs::kBlob:
          ++report.tensors_blob;
          report.blob_bytes += tensor.size_bytes;
          report.blob_value_bytes += file.header.tensors[t].size_bytes();
      }
    }
  }
  if (!same) return tl::unexpected(check_absent(output).error());
  UNWEIGHT_ASSIGN(const WorkFolder work, WorkFolder::open(output));
  UNWEIGHT_TRY(work.remove());
  UNWEIGHT_ASSIGN(const Listing listing, list_checkpoint(output));
  report.bundle_bytes = listing.total_bytes();
  report.bytes_resumed = report.source_bytes;
  report.finished = true;
  return report;
}

Result<std::filesystem::path> check_paths(const std::filesystem::path& source, const std::filesystem::path& out) {
  UNWEIGHT_TRY(status_of(source));
  UNWEIGHT_ASSIGN(std::filesystem::path output, resolve_output(out));
  UNWEIGHT_TRY(check_apart(source, output));
  return output;
}

Result<CompressReport> compress(const std::filesystem::path& source, const std::filesystem::path& out,
                                const CompressOptions& options) {
  if (options.shard_count == 0 || options.shard_count > kMaxShards || options.shard_index >= options.shard_count) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("shard {} of {} does not exist: counts are 1 to {}, indices "
                                                         "begin at 0",
                                                         options.shard_index, options.shard_count, kMaxShards));
  }
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const std::filesystem::path output, check_paths(source, out));
  if (WorkFolder::was_published(output)) return complete_publication(source, output, options);
  UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(Plan plan, scan_source(source, options.shard_count, options.verify));
  control.set_totals(plan.source.total_bytes(), 0);

  UNWEIGHT_ASSIGN(const EnteredWorkFolder entered, enter_work_folder(output, share_lock_name(options.shard_index)));
  const WorkFolder& work = entered.folder;
  UNWEIGHT_TRY(settle_plan(plan, work, control));

  CompressReport report = begin_report(plan);
  if (!joining_has_begun(work)) {
    UNWEIGHT_TRY(run_share(plan, work, options.shard_index, options.threads, control));
  }
  if (plan.shard_count == 1) {
    UNWEIGHT_TRY(assemble(plan, work, false, options.threads, control, report));
    add_aliases(plan, report);
    report.finished = true;
  } else {
    for (const Segment& segment : plan.segments) {
      if (segment.share != options.shard_index) continue;
      UNWEIGHT_ASSIGN(const auto records, read_segment_journal(plan, work, segment));
      add_to_report(plan, segment, records, report);
    }
  }
  control.report_end();
  report.bytes_resumed = control.resumed_bytes();
  return report;
}

Result<CompressReport> finish(const std::filesystem::path& source, const std::filesystem::path& out,
                              const CompressOptions& options) {
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const std::filesystem::path output, check_paths(source, out));
  if (WorkFolder::was_published(output)) return complete_publication(source, output, options);
  UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(const WorkFolder work, WorkFolder::open_existing(output));
  UNWEIGHT_ASSIGN(const std::optional<PlanFile> begun, load_plan_file(work));
  if (!begun || begun->operation != "compress") {
    return fail(ErrorCode::kBadCheckpoint, "'" + work.root().native() + "' holds no compression to finish");
  }
  UNWEIGHT_ASSIGN(Plan plan, scan_source(source, begun->shard_count, begun->verify));
  std::deque<FileLock> locks;
  for (std::uint32_t share = 0; share < plan.shard_count; ++share) {
    UNWEIGHT_ASSIGN(locks.emplace_back(), FileLock::try_acquire(work.path(share_lock_name(share))));
  }
  UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_TRY(settle_plan(plan, work, control));
  control.set_totals(plan.source.total_bytes(), 0);

  CompressReport report = begin_report(plan);
  UNWEIGHT_TRY(assemble(plan, work, true, options.threads, control, report));
  add_aliases(plan, report);
  report.finished = true;
  // Checking has counted the stored tensors' bytes; the rest of the source is headers, duplicates and other files.
  std::uint64_t rest = report.source_bytes;
  for (const Segment& segment : plan.segments) rest -= segment.source_bytes;
  control.add_bytes(rest);
  control.report_end();
  return report;
}

template <class Operation>
Result<CompressReport> timed(const Operation& operation) {
  return guarded([&]() -> Result<CompressReport> {
    const Stopwatch watch;
    UNWEIGHT_ASSIGN(CompressReport report, operation());
    report.seconds = watch.seconds();
    report.peak_memory_bytes = io::peak_memory_bytes();
    return report;
  });
}

}  // namespace

Result<CompressReport> compress_checkpoint(const std::filesystem::path& source, const std::filesystem::path& out,
                                           const CompressOptions& options) {
  return timed([&] { return compress(source, out, options); });
}

Result<CompressReport> finish_compress(const std::filesystem::path& source, const std::filesystem::path& out,
                                       const CompressOptions& options) {
  return timed([&] { return finish(source, out, options); });
}

}  // namespace unweight
