// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <deque>
#include <fmt/format.h>
#include <io/blob_form.hpp>
#include <io/bundle.hpp>
#include <io/bundle_source.hpp>
#include <io/paths.hpp>
#include <io/plan_file.hpp>
#include <io/plan_run.hpp>
#include <io/try.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight {
namespace {

using namespace io;

constexpr std::uint32_t kMaxShards = 65536;

/// What work folders remember: shares of different profiles must not be joined.
std::string operation_of(Profile profile) {
  return profile == Profile::kRuntime ? "compress" : fmt::format("compress-{}", profile_name(profile));
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
  const bool was_published = WorkFolder::was_published(output);
  if (!was_published) UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(Plan plan, scan_source(source, options.shard_count, options.verify, options.profile));
  if (was_published) return complete_publication(plan, output);
  return run_plan(std::move(plan), operation_of(options.profile), output, options.shard_index, options.threads,
                  control);
}

Result<CompressReport> finish(const std::filesystem::path& source, const std::filesystem::path& out,
                              const CompressOptions& options) {
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const std::filesystem::path output, check_paths(source, out));
  if (WorkFolder::was_published(output)) {
    const auto bundle = open_bundle(output);
    if (!bundle) return tl::unexpected(check_absent(output).error());
    UNWEIGHT_ASSIGN(const Plan plan,
                    scan_source(source, options.shard_count, options.verify, bundle->manifest.profile));
    return complete_publication(plan, output);
  }
  UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(const WorkFolder work, WorkFolder::open_existing(output));
  UNWEIGHT_ASSIGN(const std::optional<PlanFile> begun, load_plan_file(work));
  const auto profiles = {Profile::kRuntime, Profile::kDistribution};
  const auto* const profile = std::find_if(
      profiles.begin(), profiles.end(), [&](Profile each) { return begun && begun->operation == operation_of(each); });
  if (profile == profiles.end()) {
    return fail(ErrorCode::kBadCheckpoint, "'" + work.root().native() + "' holds no compression to finish");
  }
  UNWEIGHT_ASSIGN(Plan plan, scan_source(source, begun->shard_count, begun->verify, *profile));
  std::deque<FileLock> locks;
  for (std::uint32_t share = 0; share < plan.shard_count; ++share) {
    UNWEIGHT_ASSIGN(locks.emplace_back(), FileLock::try_acquire(work.path(share_lock_name(share))));
  }
  UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_TRY(settle_plan(plan, begun->operation, work, control));
  control.set_totals(plan.source.total_bytes(), 0);

  CompressReport report = begin_report(plan);
  UNWEIGHT_TRY(complete_bundle(plan, work, true, options.threads, control, report));
  // Checking has counted the stored tensors' bytes; the rest of the source is headers, duplicates and other files.
  std::uint64_t rest = report.source_bytes;
  for (const Segment& segment : plan.segments) rest -= segment.source_bytes;
  control.add_bytes(rest);
  control.report_end();
  return report;
}

Result<CompressReport> transcode(const std::filesystem::path& bundle, const std::filesystem::path& out,
                                 const TranscodeOptions& options) {
  WorkControl control(options.progress);
  UNWEIGHT_ASSIGN(const std::filesystem::path output, check_paths(bundle, out));
  const bool was_published = WorkFolder::was_published(output);
  if (!was_published) UNWEIGHT_TRY(check_absent(output));
  UNWEIGHT_ASSIGN(Plan plan, scan_bundle(bundle, options.verify, options.profile));
  if (was_published) return complete_publication(plan, output);
  const std::string operation = fmt::format("transcode-{}", profile_name(options.profile));
  return run_plan(std::move(plan), operation, output, 0, options.threads, control);
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

Result<CompressReport> transcode_bundle(const std::filesystem::path& bundle, const std::filesystem::path& out,
                                        const TranscodeOptions& options) {
  return timed([&] { return transcode(bundle, out, options); });
}

}  // namespace unweight
