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

int list_models(OutputMode mode) {
  if (mode == OutputMode::kJson) {
    Json json;
    json.begin_object();
    json.key("models");
    json.begin_array();
    for (const std::string& name : synth_models()) json.value(name);
    json.end_array();
    json.end_object();
    return print_result(json.text() + "\n");
  }
  std::string text;
  for (const std::string& name : synth_models()) text += name + "\n";
  return print_result(text);
}

Result<SynthReport> synth(const SynthArguments& arguments) {
  ProgressBar bar("synth", arguments.mode);
  SynthOptions options;
  options.model = arguments.model;
  options.seed = arguments.seed;
  options.threads = arguments.threads;
  options.progress = bar.callback();
  return synth_checkpoint(arguments.out, options);
}

std::string to_json(const SynthReport& report, const SynthArguments& arguments) {
  Json json;
  json.begin_object();
  json.member("model", arguments.model);
  json.member("seed", arguments.seed);
  json.member("out", arguments.out.native());
  json.member("files", report.files);
  json.member("tensors", report.tensors);
  json.member("bytes", report.bytes);
  json.member("seconds", report.seconds);
  json.end_object();
  return json.text();
}

std::string to_text(const SynthReport& report, const SynthArguments& arguments) {
  Table table({{}, {}});
  table.add_row({"written", fmt::format("{}  {}", format_bytes(report.bytes), printable(arguments.out.native()))});
  table.add_row({"holds", fmt::format("{} files, {} tensors with the shapes of {}, random weights of seed {}",
                                      format_count(report.files), format_count(report.tensors), arguments.model,
                                      arguments.seed)});
  table.add_row(
      {"time", fmt::format("{}, {}", format_seconds(report.seconds), format_rate(report.bytes, report.seconds))});
  return table.text();
}

}  // namespace

int run(const SynthArguments& arguments) {
  if (arguments.list) return list_models(arguments.mode);
  const auto report = synth(arguments);
  if (!report) return print_failure(report.error(), arguments.mode, "stopped; nothing was kept");
  return print_outcome(
      arguments.mode, [&] { return to_json(*report, arguments); }, [&] { return to_text(*report, arguments); });
}

}  // namespace unweight::cli
