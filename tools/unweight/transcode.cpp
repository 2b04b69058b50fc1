// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <compress_report.hpp>
#include <progress_bar.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {
namespace {

Result<CompressReport> transcode(const TranscodeArguments& arguments) {
  ProgressBar bar("transcode", arguments.mode);
  TranscodeOptions options;
  options.profile = arguments.profile;
  options.threads = arguments.threads;
  options.verify = arguments.verify;
  options.progress = bar.callback();
  return transcode_bundle(arguments.bundle, arguments.out, options);
}

}  // namespace

int run(const TranscodeArguments& arguments) {
  const auto report = transcode(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kContinueAdvice);
  return print_compress_report(*report, arguments, arguments.bundle, arguments.out);
}

}  // namespace unweight::cli
