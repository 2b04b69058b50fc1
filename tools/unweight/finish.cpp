// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <compress_report.hpp>
#include <progress_bar.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {
namespace {

Result<CompressReport> finish(const FinishArguments& arguments) {
  ProgressBar bar("finish", arguments.mode);
  CompressOptions options;
  options.threads = arguments.threads;
  options.progress = bar.callback();
  return finish_compress(arguments.source, arguments.out, options);
}

}  // namespace

int run(const FinishArguments& arguments) {
  const auto report = finish(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kContinueAdvice);
  return print_compress_report(*report, arguments, arguments.source, arguments.out);
}

}  // namespace unweight::cli
