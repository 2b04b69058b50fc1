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

Result<DecompressReport> decompress(const DecompressArguments& arguments) {
  ProgressBar bar("decompress", arguments.mode);
  DecompressOptions options;
  options.threads = arguments.threads;
  options.progress = bar.callback();
  return decompress_bundle(arguments.bundle, arguments.out, options);
}

std::string to_json(const DecompressReport& report, const DecompressArguments& arguments) {
  Json json;
  json.begin_object();
  json.member("bundle", arguments.bundle.native());
  json.member("out", arguments.out.native());
  json.member("files", report.files);
  json.member("bytes", report.bytes);
  json.member("peak_memory_bytes", report.peak_memory_bytes);
  json.member("seconds", report.seconds);
  json.end_object();
  return json.text();
}

std::string to_text(const DecompressReport& report, const DecompressArguments& arguments) {
  Table table({{}, {}});
  table.add_row({"restored", fmt::format("{}  {}", format_bytes(report.bytes), printable(arguments.out.native()))});
  table.add_row({"files", fmt::format("{}, SHA-256 of each as recorded", format_count(report.files))});
  table.add_row(
      {"time", fmt::format("{}, {}", format_seconds(report.seconds), format_rate(report.bytes, report.seconds))});
  table.add_row({"memory", format_bytes(report.peak_memory_bytes)});
  return table.text();
}

}  // namespace

int run(const DecompressArguments& arguments) {
  const auto report = decompress(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, kContinueAdvice);
  return print_outcome(
      arguments.mode, [&] { return to_json(*report, arguments); }, [&] { return to_text(*report, arguments); });
}

}  // namespace unweight::cli
