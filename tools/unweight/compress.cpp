// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <compress_report.hpp>
#include <progress_bar.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {
namespace {

Result<CompressReport> compress(const CompressArguments& arguments) {
  ProgressBar bar("compress", arguments.mode);
  CompressOptions options;
  options.profile = arguments.profile;
  options.threads = arguments.threads;
  options.verify = arguments.verify;
  options.shard_index = arguments.shard_index;
  options.shard_count = arguments.shard_count;
  options.progress = bar.callback();
  return compress_checkpoint(arguments.source, arguments.out, options);
}

}  // namespace

int run(const CompressArguments& arguments) {
  const auto report = compress(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kContinueAdvice);
  return print_compress_report(*report, arguments, arguments.source, arguments.out);
}

}  // namespace unweight::cli
