// SPDX-License-Identifier: Apache-2.0
//
// The functions of <unweight/unweight_checkpoint.h> that write and check bundles, over those of
// <unweight/checkpoint.hpp>.
#include <capi/checkpoint/structs.hpp>
#include <cstddef>
#include <type_traits>
#include <unweight/checkpoint.hpp>
#include <unweight/unweight_checkpoint.h>

namespace {

using unweight::CompressOptions;
using unweight::CompressReport;
using unweight::ErrorCode;
using unweight::fail;
using unweight::Profile;
using unweight::Result;
using unweight::capi::check_path;
using unweight::capi::check_report;
using unweight::capi::fill_report;
using unweight::capi::guarded;
using unweight::capi::read_flag;
using unweight::capi::read_options;
using unweight::capi::to_progress;

// What programs have compiled in: members never move, and these are sizeof() in the release that introduced them.
static_assert(offsetof(unweight_compress_options, progress) == 32);
static_assert(offsetof(unweight_compress_report, seconds) == 88 && offsetof(unweight_compress_report, profile) == 96);
static_assert(offsetof(unweight_restore_options, progress) == 16);
static_assert(offsetof(unweight_restore_report, seconds) == 40);
static_assert(std::is_trivial_v<unweight_progress> && offsetof(unweight_progress, current) == 48);
constexpr std::uint64_t kCompressOptionsBytes = 56, kCompressReportBytes = 112;
constexpr std::uint64_t kRestoreOptionsBytes = 32, kRestoreReportBytes = 48;
static_assert(sizeof(unweight_compress_options) >= kCompressOptionsBytes);
static_assert(sizeof(unweight_compress_report) >= kCompressReportBytes);
static_assert(sizeof(unweight_restore_options) >= kRestoreOptionsBytes);
static_assert(sizeof(unweight_restore_report) >= kRestoreReportBytes);

static_assert(UNWEIGHT_PROFILE_RUNTIME == static_cast<int>(Profile::kRuntime));
static_assert(UNWEIGHT_PROFILE_DISTRIBUTION == static_cast<int>(Profile::kDistribution));

struct CompressCall {
  unweight_compress_options given;
  CompressOptions options;
};

Result<CompressCall> to_compress_call(const unweight_compress_options* options) {
  const auto read = read_options(options, kCompressOptionsBytes);
  if (!read) return tl::unexpected(read.error());
  if (read->profile > UNWEIGHT_PROFILE_DISTRIBUTION) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("options->profile = {} must be 0 (runtime) or 1 (distribution)", read->profile));
  }
  const auto no_verify = read_flag(read->no_verify, "no_verify");
  if (!no_verify) return tl::unexpected(no_verify.error());
  CompressCall call{*read, {}};
  call.options.profile = static_cast<Profile>(read->profile);
  call.options.threads = read->threads;
  call.options.verify = !*no_verify;
  call.options.shard_index = read->shard_index;
  call.options.shard_count = read->shard_count == 0 ? 1 : read->shard_count;
  call.options.progress = to_progress(read->progress, read->user_data);
  return call;
}

/// Warnings to the callback, totals to the caller's structure.
Result<void> hand_over(const CompressReport& from, const unweight_compress_options& given,
                       unweight_compress_report* to) {
  if (given.warning != nullptr) {
    for (const std::string& warning : from.warnings) given.warning(warning.c_str(), given.user_data);
  }
  unweight_compress_report report{};
  report.source_bytes = from.source_bytes;
  report.bundle_bytes = from.bundle_bytes;
  report.tensors = from.tensors;
  report.tensors_blob = from.tensors_blob;
  report.tensors_raw = from.tensors_raw;
  report.tensors_alias = from.tensors_alias;
  report.blob_value_bytes = from.blob_value_bytes;
  report.blob_bytes = from.blob_bytes;
  report.bytes_resumed = from.bytes_resumed;
  report.peak_memory_bytes = from.peak_memory_bytes;
  report.seconds = from.seconds;
  report.profile = static_cast<std::uint32_t>(from.profile);
  report.finished = from.finished ? 1 : 0;
  report.verified = from.verified ? 1 : 0;
  fill_report(report, to);
  return {};
}

/// @param run  does the work with the options, and returns a Result<CompressReport>
template <class Run>
unweight_status compress_call(const char* source, const char* source_name, const char* out,
                              const unweight_compress_options* options, unweight_compress_report* report,
                              const Run& run) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_path(source, source_name); !ok) return ok;
    if (auto ok = check_path(out, "out"); !ok) return ok;
    if (auto ok = check_report(report, kCompressReportBytes); !ok) return ok;
    const auto call = to_compress_call(options);
    if (!call) return tl::unexpected(call.error());
    const Result<CompressReport> done = run(call->options);
    if (!done) return tl::unexpected(done.error());
    return hand_over(*done, call->given, report);
  });
}

template <class Report>
unweight_restore_report to_restore_report(const Report& from) {
  unweight_restore_report report{};
  report.files = from.files;
  report.bytes = from.bytes;
  report.peak_memory_bytes = from.peak_memory_bytes;
  report.seconds = from.seconds;
  return report;
}

}  // namespace

unweight_status unweight_compress_checkpoint(const char* source, const char* out,
                                             const unweight_compress_options* options,
                                             unweight_compress_report* report) {
  return compress_call(source, "source", out, options, report, [&](const CompressOptions& checked) {
    return unweight::compress_checkpoint(source, out, checked);
  });
}

unweight_status unweight_finish_compress(const char* source, const char* out, const unweight_compress_options* options,
                                         unweight_compress_report* report) {
  return compress_call(source, "source", out, options, report,
                       [&](const CompressOptions& checked) { return unweight::finish_compress(source, out, checked); });
}

unweight_status unweight_transcode_bundle(const char* bundle, const char* out, const unweight_compress_options* options,
                                          unweight_compress_report* report) {
  return compress_call(
      bundle, "bundle", out, options, report, [&](const CompressOptions& checked) -> Result<CompressReport> {
        if (checked.shard_count != 1) {
          return fail(ErrorCode::kInvalidArgument,
                      fmt::format("options->shard_count = {} must be 0 or 1: transcoding is not shared "
                                  "out",
                                  checked.shard_count));
        }
        return unweight::transcode_bundle(bundle, out,
                                          {.profile = checked.profile,
                                           .threads = checked.threads,
                                           .verify = checked.verify,
                                           .progress = checked.progress});
      });
}

unweight_status unweight_decompress_bundle(const char* bundle, const char* out, const unweight_restore_options* options,
                                           unweight_restore_report* report) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_path(bundle, "bundle"); !ok) return ok;
    if (auto ok = check_path(out, "out"); !ok) return ok;
    if (auto ok = check_report(report, kRestoreReportBytes); !ok) return ok;
    const auto read = read_options(options, kRestoreOptionsBytes);
    if (!read) return tl::unexpected(read.error());
    const auto done = unweight::decompress_bundle(
        bundle, out, {.threads = read->threads, .progress = to_progress(read->progress, read->user_data)});
    if (!done) return tl::unexpected(done.error());
    fill_report(to_restore_report(*done), report);
    return {};
  });
}

unweight_status unweight_verify_bundle(const char* bundle, const char* against, const unweight_restore_options* options,
                                       unweight_restore_report* report) {
  return guarded([&]() -> Result<void> {
    if (auto ok = check_path(bundle, "bundle"); !ok) return ok;
    if (against != nullptr) {
      if (auto ok = check_path(against, "against"); !ok) return ok;
    }
    if (auto ok = check_report(report, kRestoreReportBytes); !ok) return ok;
    const auto read = read_options(options, kRestoreOptionsBytes);
    if (!read) return tl::unexpected(read.error());
    unweight::VerifyOptions checked;
    checked.threads = read->threads;
    if (against != nullptr) checked.against = against;
    checked.progress = to_progress(read->progress, read->user_data);
    const auto done = unweight::verify_bundle(bundle, checked);
    if (!done) return tl::unexpected(done.error());
    unweight_restore_report filled = to_restore_report(*done);
    filled.tensors = done->tensors;
    fill_report(filled, report);
    return {};
  });
}
