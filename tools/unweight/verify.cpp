// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <progress_bar.hpp>
#include <table.hpp>
#include <text.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {
namespace {

Result<VerifyReport> verify(const VerifyArguments& arguments) {
  ProgressBar bar("verify", arguments.mode);
  VerifyOptions options;
  options.threads = arguments.threads;
  options.against = arguments.against;
  options.progress = bar.callback();
  return verify_bundle(arguments.bundle, options);
}

std::string to_json(const VerifyReport& report, const VerifyArguments& arguments) {
  Json json;
  json.begin_object();
  json.member("bundle", arguments.bundle.native());
  if (!arguments.against.empty()) json.member("against", arguments.against.native());
  json.member("files", report.files);
  json.member("tensors", report.tensors);
  json.member("bytes", report.bytes);
  json.member("compared_with_source", report.compared_with_source);
  json.member("peak_memory_bytes", report.peak_memory_bytes);
  json.member("seconds", report.seconds);
  json.end_object();
  return json.text();
}

std::string to_text(const VerifyReport& report, const VerifyArguments& arguments) {
  Table table({{}, {}});
  table.add_row({"intact", printable(arguments.bundle.native())});
  table.add_row({"checked", fmt::format("{}, {}, {}", format_count(report.files, "file"),
                                        format_count(report.tensors, "tensor"), format_bytes(report.bytes))});
  table.add_row({"compared", report.compared_with_source
                                 ? fmt::format("bit for bit with {}", printable(arguments.against.native()))
                                 : std::string("with the recorded SHA-256 of every source file")});
  table.add_row(
      {"time", fmt::format("{}, {}", format_seconds(report.seconds), format_rate(report.bytes, report.seconds))});
  table.add_row({"memory", format_bytes(report.peak_memory_bytes)});
  return table.text();
}

}  // namespace

int run(const VerifyArguments& arguments) {
  const auto report = verify(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kRepeatAdvice);
  return print_outcome(
      arguments.mode, [&] { return to_json(*report, arguments); }, [&] { return to_text(*report, arguments); });
}

}  // namespace unweight::cli
