// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <compress_report.hpp>
#include <fmt/format.h>
#include <json.hpp>
#include <table.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

/// Bits for each 16-bit value.
double bits_per_weight(std::uint64_t stored_bytes, std::uint64_t value_bytes) {
  return value_bytes == 0 ? 0 : 16.0 * static_cast<double>(stored_bytes) / static_cast<double>(value_bytes);
}

std::string to_json(const CompressReport& report, const std::filesystem::path& source,
                    const std::filesystem::path& out) {
  Json json;
  json.begin_object();
  json.member("source", source.native());
  json.member("out", out.native());
  json.member("profile", profile_name(report.profile));
  json.member("source_bytes", report.source_bytes);
  json.member("bundle_bytes", report.bundle_bytes);
  json.member("tensors", report.tensors);
  json.member("tensors_blob", report.tensors_blob);
  json.member("tensors_raw", report.tensors_raw);
  json.member("tensors_alias", report.tensors_alias);
  json.member("blob_value_bytes", report.blob_value_bytes);
  json.member("blob_bytes", report.blob_bytes);
  json.member("bits_per_weight", bits_per_weight(report.blob_bytes, report.blob_value_bytes));
  json.member("bytes_resumed", report.bytes_resumed);
  json.member("peak_memory_bytes", report.peak_memory_bytes);
  json.member("seconds", report.seconds);
  json.member("finished", report.finished);
  json.member("verified", report.verified);
  json.key("warnings");
  json.begin_array();
  for (const std::string& warning : report.warnings) json.value(warning);
  json.end_array();
  json.end_object();
  return json.text();
}

std::string to_text(const CompressReport& report, const std::filesystem::path& source,
                    const std::filesystem::path& out) {
  Table table({{}, {}});
  table.add_row({"source", fmt::format("{}  {}", format_bytes(report.source_bytes), printable(source.native()))});
  if (report.finished) {
    table.add_row(
        {"bundle", fmt::format("{}  {}  ({} of the source)", format_bytes(report.bundle_bytes), printable(out.native()),
                               format_percent(report.bundle_bytes, report.source_bytes))});
  }
  table.add_row(
      {"tensors", fmt::format("{} compressed, {} raw, {}", format_count(report.tensors_blob),
                              format_count(report.tensors_raw), format_count(report.tensors_alias, "duplicate"))});
  if (report.tensors_blob > 0) {
    table.add_row({"compressed", fmt::format("{} to {}, {:.3f} bits/weight", format_bytes(report.blob_value_bytes),
                                             format_bytes(report.blob_bytes),
                                             bits_per_weight(report.blob_bytes, report.blob_value_bytes))});
  }
  table.add_row({"profile", std::string(profile_name(report.profile))});
  table.add_row({"verified", report.verified ? "every blob decoded and compared" : "no"});
  const std::uint64_t done_now = report.source_bytes - std::min(report.source_bytes, report.bytes_resumed);
  std::string time = format_seconds(report.seconds);
  // A share reads only a part of the source, so that its rate is unknown here.
  if (report.finished) time += ", " + format_rate(done_now, report.seconds);
  if (report.bytes_resumed > 0) {
    time += fmt::format(" ({} done by an earlier run)", format_bytes(report.bytes_resumed));
  }
  table.add_row({"time", time});
  table.add_row({"memory", format_bytes(report.peak_memory_bytes)});
  std::string text = table.text();
  if (!report.finished) {
    text += fmt::format("This share is done. When all are: unweight finish {} {}\n", printable(source.native()),
                        printable(out.native()));
  }
  return text;
}

}  // namespace

int print_compress_report(const CompressReport& report, const CommonArguments& common,
                          const std::filesystem::path& source, const std::filesystem::path& out) {
  for (const std::string& warning : report.warnings) print_warning(warning);
  return print_outcome(
      common.mode, [&] { return to_json(report, source, out); }, [&] { return to_text(report, source, out); });
}

}  // namespace unweight::cli
