// SPDX-License-Identifier: Apache-2.0
//
// Measuring is done by a program of its own, tune_device, which needs a GPU; everything else is here.
#include <charconv>
#include <commands.hpp>
#include <companion.hpp>
#include <filesystem>
#include <fmt/format.h>
#include <interrupt.hpp>
#include <plan_report.hpp>
#include <progress_bar.hpp>
#include <report_file.hpp>
#include <text.hpp>
#include <unistd.h>
#include <unweight/tune.hpp>

namespace unweight::cli {
namespace {

namespace fs = std::filesystem;

/// What tune_device says.
class DeviceOutput {
 public:
  explicit DeviceOutput(OutputMode mode) : bar_("tune", mode) {}

  bool take(std::string_view line) {
    const std::string_view word = next(line);
    if (word == "progress") {
      const auto done = number(next(line)), total = number(next(line));
      if (total > 0) bar_.show(done / total, std::string(line));
    } else if (word == "warning") {
      measuring.warnings.emplace_back(line);
    } else if (word == "refusal") {
      measuring.refusals.emplace_back(line);
    } else if (word == "summary") {
      measuring.seconds = number(next(line));
      measuring.timed = static_cast<std::uint64_t>(number(next(line)));
      measuring.refused = static_cast<std::uint64_t>(number(next(line)));
    } else if (word == "error") {
      const auto code = static_cast<std::uint32_t>(number(next(line)));
      error = {static_cast<ErrorCode>(code), std::string(line)};
    }
    return received_signal() == 0;
  }

  Measuring measuring;
  Error error{ErrorCode::kOk, ""};

 private:
  /// Cuts the first word off.
  static std::string_view next(std::string_view& line) {
    const std::size_t space = line.find(' ');
    const std::string_view word = line.substr(0, space);
    line.remove_prefix(space == line.npos ? line.size() : space + 1);
    return word;
  }
  static double number(std::string_view word) {
    double value = 0;
    (void)std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
  }

  ProgressBar bar_;
};

/// A file that goes away with the object.
struct TemporaryFile {
  explicit TemporaryFile(fs::path path_in) : path(std::move(path_in)) {}
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  fs::path path;
};

std::string joined(const std::vector<std::uint32_t>& numbers) { return fmt::format("{}", fmt::join(numbers, ",")); }

std::vector<std::string> device_arguments(const TuneArguments& arguments, const ModelMatrices& model,
                                          const fs::path& measured, bool has_incumbent) {
  constexpr std::uint32_t kMostDefaultTokens = 4096;
  std::vector<std::uint32_t> tokens = arguments.tokens;
  for (std::uint32_t n = 1; arguments.tokens.empty() && n <= kMostDefaultTokens; n *= 2) tokens.push_back(n);
  tokens.insert(tokens.end(), arguments.memory.batch_sizes.begin(), arguments.memory.batch_sizes.end());
  std::string weights;
  for (const WeightClass& weight : weight_classes(model)) {
    weights += fmt::format("{}{}x{}:{}", weights.empty() ? "" : ",", weight.rows, weight.cols,
                           exception_class_name(weight.exceptions));
  }
  std::vector<std::string> words = {"--weights", weights,           "--tokens",  joined(tokens),
                                    "--out",     measured.native(), "--seconds", fmt::format("{}", arguments.seconds),
                                    "--command", arguments.command};
  if (arguments.exhaustive) words.emplace_back("--exhaustive");
  if (has_incumbent) words.insert(words.end(), {"--incumbent", arguments.out.native()});
  return words;
}

Result<Plan> measure(const TuneArguments& arguments, const ModelMatrices& model, Measuring& measuring) {
  const auto program = find_companion("tune_device", "../tune_device",
                                      "tune: this unweight was built without its CUDA part", ErrorCode::kNoDevice);
  if (!program) return tl::unexpected(program.error());
  std::error_code ignored;
  const bool has_incumbent = fs::exists(arguments.out, ignored);
  if (has_incumbent) {
    // Not to be found out, and replaced, after a minute.
    if (auto plan = read_plan(arguments.out); !plan) return tl::unexpected(plan.error());
  }
  const TemporaryFile measured(fs::path(arguments.out) += fmt::format(".{}.measured", getpid()));
  DeviceOutput output(arguments.mode);
  const auto status = run_companion(*program, device_arguments(arguments, model, measured.path, has_incumbent),
                                    [&](std::string_view line) { return output.take(line); });
  if (!status) return tl::unexpected(status.error());
  if (received_signal() != 0) return fail(ErrorCode::kCancelled, "");
  if (output.error.code != ErrorCode::kOk) return tl::unexpected(output.error);
  if (*status != 0) {
    return fail(*status == 3 ? ErrorCode::kNoDevice : ErrorCode::kInternal,
                fmt::format("tune: {} ended with status {}", program->native(), *status));
  }
  measuring = std::move(output.measuring);
  return read_plan(measured.path);
}

Result<ModelMatrices> matrices_of(const TuneArguments& arguments) {
  if (!arguments.known_model.empty()) return known_model_matrices(arguments.known_model, arguments.merging);
  if (!arguments.shapes.empty()) return shape_matrices(arguments.shapes);
  return model_matrices(arguments.model, arguments.merging);
}

/// The plan, and the model that it is for.
Result<std::pair<Plan, ModelMatrices>> plan_and_model(const TuneArguments& arguments, Measuring& measuring) {
  const bool has_source = !arguments.model.empty() || !arguments.known_model.empty() || !arguments.shapes.empty();
  ModelMatrices model;
  if (has_source) {
    auto read = matrices_of(arguments);
    if (!read) return tl::unexpected(read.error());
    model = *std::move(read);
  }
  auto plan = arguments.from.empty() ? measure(arguments, model, measuring) : read_plan(arguments.from);
  if (!plan) return tl::unexpected(plan.error());
  if (!has_source) {
    const PlanRequest& request = plan->request;
    model = {request.model, plan->matrices, request.other_bytes, request.kv_bytes_per_token};
    for (PlanMatrices& equal : model.matrices) equal.raw = 0;
  }
  return std::pair(*std::move(plan), std::move(model));
}

Result<PlanView> tune(const TuneArguments& arguments) {
  PlanView view;
  auto made = plan_and_model(arguments, view.measuring);
  if (!made) return tl::unexpected(made.error());
  view.plan = std::move(made->first);
  auto memory = plan_memory(view.plan, made->second, arguments.memory);
  if (!memory) return tl::unexpected(memory.error());
  view.memory = *std::move(memory);
  view.file = arguments.out;
  if (auto written = write_plan(view.plan, arguments.out); !written) return tl::unexpected(written.error());
  return view;
}

}  // namespace

int run(const TuneArguments& arguments) {
  auto report_file = ReportFile::open(arguments.report);
  if (!report_file) return print_error(report_file.error(), arguments.mode);
  auto view = tune(arguments);
  if (!view) return print_failure(view.error(), arguments.mode, kRepeatAdvice);
  if (!arguments.report.empty()) {
    view->report = arguments.report;
    if (const auto written = report_file->write(plan_page(*view)); !written) {
      return print_error(written.error(), arguments.mode);
    }
  }
  if (arguments.mode != OutputMode::kJson) {
    for (const std::string& warning : view->measuring.warnings) print_warning(warning);
    for (const std::string& warning : view->memory->warnings) print_warning(warning);
  }
  return print_outcome(
      arguments.mode, [&] { return plan_json(*view); }, [&] { return plan_summary(*view); });
}

}  // namespace unweight::cli
