// SPDX-License-Identifier: Apache-2.0
//
// The part of `unweight tune` that needs a GPU: a program of its own, so that the tool needs no CUDA toolkit. It
// measures and writes a plan, anew after each weight; what to do with it is the tool's. On standard output, a line
// each:
//
//   progress DONE TOTAL TEXT          while it works
//   warning TEXT, refusal TEXT        once at the end
//   summary SECONDS TIMED REFUSED     at last
//   error CODE TEXT                   instead, with an exit code other than 0
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <optional>
#include <string>
#include <string_view>
#include <unweight/pipelines.hpp>
#include <unweight/plan.hpp>
#include <unweight/tune.hpp>
#include <vector>

namespace {

using unweight::BlobLayout;
using unweight::ErrorCode;
using unweight::ExceptionClass;
using unweight::WeightClass;

void say(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

int stop(const unweight::Error& error) {
  say(fmt::format("error {} {}", static_cast<std::uint32_t>(error.code), error.message));
  return error.code == ErrorCode::kNoDevice || error.code == ErrorCode::kCuda ? 3 : 2;
}

/// "4096x14336" or "4096x14336:many".
std::optional<WeightClass> parse_weight(std::string_view text) {
  WeightClass weight;
  const char *at = text.data(), *end = at + text.size();
  const auto rows = std::from_chars(at, end, weight.rows);
  if (rows.ec != std::errc() || rows.ptr == end || *rows.ptr != 'x') return std::nullopt;
  const auto cols = std::from_chars(rows.ptr + 1, end, weight.cols);
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
  if (cols.ec != std::errc() || weight.rows - 1 >= kMost || weight.cols - 1 >= kMost) return std::nullopt;
  if (cols.ptr == end) return weight;
  for (const auto exceptions : {ExceptionClass::kUsual, ExceptionClass::kMany, ExceptionClass::kDense}) {
    const std::string_view rest(cols.ptr, static_cast<std::size_t>(end - cols.ptr));
    if (rest.substr(0, 1) != ":" || rest.substr(1) != exception_class_name(exceptions)) continue;
    weight.exceptions = exceptions;
    return weight;
  }
  return std::nullopt;
}

int run(int argc, char** argv) {
  CLI::App app("Measures on the GPU for 'unweight tune'");
  std::vector<std::string> names;
  std::filesystem::path out, incumbent;
  unweight::TuneOptions options;
  app.add_option("--weights", names, "ROWSxCOLS[:EXCEPTIONS],...")->delimiter(',')->required();
  app.add_option("--tokens", options.tokens, "numbers of tokens")->delimiter(',')->required();
  app.add_option("--out", out, "plan to write")->required();
  app.add_option("--seconds", options.seconds, "time limit, about; 0: none")->capture_default_str();
  app.add_flag("--exhaustive", options.exhaustive, "time every candidate");
  app.add_option("--incumbent", incumbent, "plan whose choices are to be beaten");
  app.add_option("--command", options.command, "for the plan's origin");
  CLI11_PARSE(app, argc, argv);

  for (const std::string& name : names) {
    const auto weight = parse_weight(name);
    if (!weight) return stop({ErrorCode::kInvalidArgument, fmt::format("--weights {} is not ROWSxCOLS", name)});
    options.weights.push_back(*weight);
  }
  std::optional<unweight::Plan> before;
  if (!incumbent.empty()) {
    auto plan = unweight::read_plan(incumbent);
    if (!plan) return stop(plan.error());
    before = *std::move(plan);
    options.incumbent = &*before;
  }
  options.progress = [](const unweight::TuneProgress& progress) {
    say(fmt::format("progress {} {} {}", progress.cells_done, progress.cells_total, progress.current));
    return true;
  };
  unweight::Result<void> written;
  options.weight_done = [&](const unweight::Plan& plan) { written = unweight::write_plan(plan, out); };
  const auto report = unweight::tune_on_device(options);
  if (!report) return stop(report.error());
  if (!written) return stop(written.error());
  for (const std::string& warning : report->warnings) say("warning " + warning);
  for (const std::string& refusal : report->refusals) say("refusal " + refusal);
  say(fmt::format("summary {:.3f} {} {}", report->seconds, report->candidates_timed, report->candidates_refused));
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
