// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <fmt/format.h>
#include <inspect_report.hpp>
#include <progress_bar.hpp>
#include <report_file.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {
namespace {

Result<InspectReport> inspect(const InspectArguments& arguments) {
  ProgressBar bar("inspect", arguments.mode);
  InspectOptions options;
  options.threads = arguments.threads;
  options.histograms = arguments.histograms;
  options.progress = bar.callback();
  return inspect_path(arguments.path, options);
}

}  // namespace

int run(const InspectArguments& arguments) {
  // Before the work, which can take minutes.
  auto report_file = ReportFile::open(arguments.report);
  if (!report_file) return print_error(report_file.error(), arguments.mode);
  const auto report = inspect(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kRepeatAdvice);
  const TensorSummary summary = summarize(report->tensors);
  const Inspection inspection{arguments, *report, summary};
  if (!arguments.report.empty()) {
    if (const auto written = report_file->write(inspection_page(inspection)); !written) {
      return print_error(written.error(), arguments.mode);
    }
  }
  return print_outcome(
      arguments.mode, [&] { return inspection_json(inspection); }, [&] { return inspection_text(inspection); });
}

}  // namespace unweight::cli
