// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <io/assembly.hpp>
#include <io/bundle.hpp>
#include <io/paths.hpp>
#include <io/plan_file.hpp>
#include <io/plan_run.hpp>
#include <io/share_run.hpp>
#include <io/source_access.hpp>
#include <io/try.hpp>

namespace unweight::io {
namespace {

void add_aliases(const Plan& plan, CompressReport& report) {
  for (const PlannedFile& file : plan.files) {
    for (const auto& original : file.originals) {
      if (!original) continue;
      ++report.tensors;
      ++report.tensors_alias;
    }
  }
}

}  // namespace

std::string share_lock_name(std::uint32_t share) { return fmt::format("share-{}.lock", share); }

Result<void> settle_plan(Plan& plan, const std::string& operation, const WorkFolder& work, WorkControl& control) {
  // One process looks for duplicates, the others wait and read what it found.
  UNWEIGHT_ASSIGN(const FileLock lock, FileLock::acquire(work.lock_path(), control));
  PlanFile wanted{operation, plan.shard_count, plan.verify, plan.fingerprint, {}};
  UNWEIGHT_ASSIGN(const std::optional<PlanFile> found, load_plan_file(work));
  if (found) {
    UNWEIGHT_TRY(check_same_plan(work, *found, wanted));
    return complete_plan(plan, found->aliases);
  }
  UNWEIGHT_ASSIGN(wanted.aliases, plan.access->aliases(plan, control));
  UNWEIGHT_TRY(complete_plan(plan, wanted.aliases));
  return save_plan_file(work, wanted);
}

CompressReport begin_report(const Plan& plan) {
  CompressReport report;
  report.profile = plan.profile;
  report.source_bytes = plan.source.total_bytes();
  report.verified = plan.verify;
  report.warnings = plan.warnings;
  return report;
}

Result<void> complete_bundle(const Plan& plan, const WorkFolder& work, bool check_bytes, unsigned threads,
                             WorkControl& control, CompressReport& report) {
  UNWEIGHT_TRY(assemble(plan, work, check_bytes, threads, control, report));
  add_aliases(plan, report);
  report.finished = true;
  return {};
}

Result<CompressReport> run_plan(Plan plan, const std::string& operation, const std::filesystem::path& output,
                                std::uint32_t share_index, unsigned threads, WorkControl& control) {
  control.set_totals(plan.source.total_bytes(), 0);
  UNWEIGHT_ASSIGN(const EnteredWorkFolder entered, enter_work_folder(output, share_lock_name(share_index)));
  const WorkFolder& work = entered.folder;
  UNWEIGHT_TRY(settle_plan(plan, operation, work, control));

  CompressReport report = begin_report(plan);
  if (!joining_has_begun(work)) {
    UNWEIGHT_TRY(run_share(plan, work, share_index, threads, control));
  }
  if (plan.shard_count == 1) {
    UNWEIGHT_TRY(complete_bundle(plan, work, false, threads, control, report));
  } else {
    for (const Segment& segment : plan.segments) {
      if (segment.share != share_index) continue;
      UNWEIGHT_ASSIGN(const auto records, read_segment_journal(plan, work, segment));
      add_to_report(plan, segment, records, report);
    }
  }
  control.report_end();
  report.bytes_resumed = control.resumed_bytes();
  return report;
}

Result<CompressReport> complete_publication(const Plan& plan, const std::filesystem::path& output) {
  const auto bundle = open_bundle(output);
  bool same = bundle && bundle->manifest.profile == plan.profile && bundle->files.size() == plan.files.size();
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

}  // namespace unweight::io
