// SPDX-License-Identifier: Apache-2.0
//
// The only file that includes CLI11, which is slow to compile.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <arguments.hpp>
#include <charconv>
#include <fmt/format.h>
#include <help_text.hpp>
#include <string_view>
#include <unweight/version.h>

namespace unweight::cli {
namespace {

constexpr unsigned kMaxThreads = 4096;
constexpr std::uint32_t kMaxShards = 65'536;

/// A whole unsigned number and nothing else.
template <class Integer>
bool parse_number(std::string_view text, Integer& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

struct Shard {
  std::uint32_t index = 0;
  std::uint32_t count = 1;
};

/// "i/n".
bool parse_shard(std::string_view text, Shard& shard) {
  const std::size_t slash = text.find('/');
  return slash != std::string_view::npos && parse_number(text.substr(0, slash), shard.index) &&
         parse_number(text.substr(slash + 1), shard.count) && shard.index < shard.count && shard.count <= kMaxShards;
}

/// "4096x14336", or "4096x14336:32" for so many.
bool parse_shape(std::string_view text, ShapeCount& shape) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
  const std::size_t x = text.find('x'), colon = text.find(':');
  if (x == text.npos || (colon != text.npos && !parse_number(text.substr(colon + 1), shape.count))) return false;
  return parse_number(text.substr(0, x), shape.rows) &&
         parse_number(text.substr(x + 1, colon == text.npos ? colon : colon - x - 1), shape.cols) &&
         shape.rows - 1 < kMost && shape.cols - 1 < kMost && shape.count - 1 < kMost;
}

/// "24000000000", "24GB", "22.5GiB".
bool parse_bytes(std::string_view text, std::uint64_t& bytes) {
  constexpr std::pair<std::string_view, double> kUnits[] = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
                                                            {"TiB", 0x1p40}, {"kB", 1e3},     {"MB", 1e6},
                                                            {"GB", 1e9},     {"TB", 1e12},    {"B", 1}};
  double factor = 1;
  for (const auto& [unit, size] : kUnits) {
    if (!text.ends_with(unit)) continue;
    text.remove_suffix(unit.size());
    factor = size;
    break;
  }
  double number = 0;
  if (!parse_number(text, number) || !(number * factor >= 1 && number * factor < 1e18)) return false;
  bytes = static_cast<std::uint64_t>(number * factor);
  return true;
}

/// Lays out --help: description, usage, arguments, options by group, commands, footer.
class HelpFormatter final : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode /*mode*/) const override {
    std::string text = app->get_description() + "\n\nUsage:\n  " + name + " [OPTIONS]";
    const auto arguments = app->get_options([](const CLI::Option* option) { return option->get_positional(); });
    for (const CLI::Option* argument : arguments) {
      const std::string label = argument->get_name(true);
      text += argument->get_required() ? " " + label : " [" + label + "]";
    }
    const auto commands = app->get_subcommands([](const CLI::App*) { return true; });
    if (!commands.empty()) text += " COMMAND";
    text += '\n';

    if (!commands.empty()) text += "\nCommands:\n";
    for (const CLI::App* command : commands) {
      const std::string description = command->get_description();
      add_entry(text, command->get_name(), description.substr(0, description.find('\n')));
    }
    if (!arguments.empty()) text += "\nArguments:\n";
    for (const CLI::Option* argument : arguments)
      add_entry(text, argument->get_name(true), argument->get_description());
    for (const std::string& group : app->get_groups()) {
      const auto options = app->get_options(
          [&](const CLI::Option* option) { return option->nonpositional() && option->get_group() == group; });
      if (!options.empty()) text += "\n" + group + ":\n";
      for (const CLI::Option* option : options) add_entry(text, option_name(*option), option_description(*option));
    }
    text += "\n" + app->get_footer() + "\n";
    if (app->get_parent() != nullptr) text += "\nFor exit codes and environment, see 'unweight --help'.\n";
    return text;
  }

 private:
  static void add_entry(std::string& text, const std::string& name, const std::string& description) {
    text += fmt::format("  {:<22}  {}\n", name, description);
  }

  static std::string option_name(const CLI::Option& option) {
    std::string name = option.get_snames().empty() ? "    " : "-" + option.get_snames().front() + ", ";
    name += "--" + option.get_lnames().front();
    return option.get_type_size() == 0 ? name : name + " " + option.get_option_text();
  }

  static std::string option_description(const CLI::Option& option) {
    std::string text = option.get_description();
    std::string notes;
    if (!option.get_default_str().empty()) notes = "default " + option.get_default_str();
    if (!option.get_envname().empty()) notes += ", or $" + option.get_envname();
    return notes.empty() ? text : text + " [" + notes + "]";
  }
};

/// The definitions of all commands, and the places that their values are parsed into.
class CommandLine {
 public:
  CommandLine() : app_(kMainDescription, "unweight") {
    app_.formatter(std::make_shared<HelpFormatter>());
    app_.footer(kMainFooter);
    app_.require_subcommand(1);
    app_.set_version_flag("--version", "unweight " UNWEIGHT_VERSION_STRING, "Print the version and exit");
    app_.set_help_flag("-h,--help", "Print this help and exit");
    add_compress();
    add_finish();
    add_decompress();
    add_verify();
    add_transcode();
    add_inspect();
    add_synth();
    add_tune();
    add_plan();
    add_bench();
  }

  Result<Command> parse(int argc, const char* const* argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      return PrintText{app_.help()};
    } catch (const CLI::CallForVersion&) {
      return PrintText{app_.version() + "\n"};
    } catch (const CLI::ParseError& error) {
      return usage_error(error.what());
    }
    const OutputMode mode = json_ ? OutputMode::kJson : quiet_ ? OutputMode::kQuiet : OutputMode::kNormal;
    const auto with_common = [&](auto arguments) -> Command {
      arguments.mode = mode;
      arguments.threads = threads_;
      return arguments;
    };
    const std::string name = chosen()->get_name();
    if (name == "compress") return with_common(compress_);
    if (name == "finish") return with_common(finish_);
    if (name == "decompress") return with_common(decompress_);
    if (name == "verify") return with_common(verify_);
    if (name == "transcode") return with_common(transcode_);
    if (name == "inspect") return with_common(inspect_);
    if (name == "bench") return BenchArguments{chosen()->remaining()};
    if (name == "tune") {
      tune_.mode = mode;
      for (int i = 0; i < argc; ++i)
        tune_.command += fmt::format("{}{}", i == 0 ? "" : " ", i == 0 ? "unweight" : argv[i]);
      return check_tune();
    }
    if (name == "plan") {
      plan_.mode = mode;
      return check_plan();
    }
    if (!synth_.list && synth_.model.empty()) return usage_error("--model is required");
    if (!synth_.list && synth_.out.empty()) return usage_error("OUT is required");
    return with_common(synth_);
  }

 private:
  const CLI::App* chosen() const {
    const auto commands = app_.get_subcommands();
    return commands.empty() ? nullptr : commands.front();
  }

  tl::unexpected<Error> usage_error(std::string message) const {
    const CLI::App* command = chosen();
    const std::string name = command == nullptr ? "" : command->get_name();
    // The parser's own words are about subcommands.
    if (command == nullptr && message.find("subcommand") != std::string::npos) {
      const auto words = app_.remaining();
      const bool option = !words.empty() && words.front().starts_with('-');
      message = words.empty() ? "a command is required"
                              : fmt::format("there is no {} '{}'", option ? "option" : "command", words.front());
    }
    if (!name.empty()) message = name + ": " + message;
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{}; see 'unweight {}{}--help'", message, name, name.empty() ? "" : " "));
  }

  CLI::App* add_command(const char* name, const char* description, const char* footer) {
    CLI::App* command = app_.add_subcommand(name, description);
    command->footer(footer);
    command->set_help_flag();  // defined again as the last option
    return command;
  }

  void add_path(CLI::App* command, const char* name, std::filesystem::path& path, const char* description) {
    command->add_option(name, path, description)->required();
  }

  void add_common(CLI::App* command) {
    command->add_option("--threads", threads_, "Number of threads; 0 is one for each CPU")
        ->option_text("N")
        ->envname("UNWEIGHT_THREADS")
        ->check(CLI::Range(0U, kMaxThreads))
        ->capture_default_str()
        ->group("Work");
    add_output(command);
  }

  void add_output(CLI::App* command) {
    auto* json = command->add_flag("--json", json_, "Print one JSON object instead of text, also for an error");
    auto* quiet = command->add_flag("--quiet,-q", quiet_, "Print errors and warnings only");
    json->group("Output")->excludes(quiet);
    quiet->group("Output");
    command->set_help_flag("-h,--help", "Print this help and exit")->group("Output");
  }

  static CLI::Option* add_profile(CLI::App* command, Profile& profile) {
    return command
        ->add_option_function<std::string>(
            "--profile",
            [&profile](const std::string& text) {
              for (const Profile each : {Profile::kRuntime, Profile::kDistribution}) {
                if (text != profile_name(each)) continue;
                profile = each;
                return;
              }
              throw CLI::ValidationError(fmt::format("--profile {} is neither 'runtime' nor 'distribution'", text));
            },
            "'runtime', for GPU kernels, or 'distribution', smallest")
        ->option_text("NAME")
        ->group("Work");
  }

  static void add_no_verify(CLI::App* command, bool& verify) {
    command
        ->add_flag_callback(
            "--no-verify", [&verify] { verify = false; },
            "Do not decode every blob again and compare it before it is written")
        ->group("Work");
  }

  void add_compress() {
    CLI::App* command = add_command("compress", kCompressDescription, kCompressFooter);
    add_path(command, "SOURCE", compress_.source, "Checkpoint folder or .safetensors file");
    add_path(command, "OUT", compress_.out, "Folder to make; must not exist");
    add_profile(command, compress_.profile)->default_str(std::string(profile_name(compress_.profile)));
    add_no_verify(command, compress_.verify);
    command
        ->add_option_function<std::string>(
            "--shard",
            [this](const std::string& text) {
              Shard shard;
              if (!parse_shard(text, shard)) {
                throw CLI::ValidationError(fmt::format(
                    "--shard {} is not i/n with 0 <= i < n <= {}: shares are numbered from 0", text, kMaxShards));
              }
              compress_.shard_index = shard.index;
              compress_.shard_count = shard.count;
            },
            "Do share i of n only, counted from 0; 'unweight finish' joins them")
        ->option_text("i/n")
        ->group("Work");
    add_common(command);
  }

  void add_finish() {
    CLI::App* command = add_command("finish", kFinishDescription, kFinishFooter);
    add_path(command, "SOURCE", finish_.source, "The shares' source");
    add_path(command, "OUT", finish_.out, "The shares' output");
    add_common(command);
  }

  void add_decompress() {
    CLI::App* command = add_command("decompress", kDecompressDescription, kDecompressFooter);
    add_path(command, "BUNDLE", decompress_.bundle, "Folder made by 'compress'");
    add_path(command, "OUT", decompress_.out, "Folder to make; must not exist");
    add_common(command);
  }

  void add_verify() {
    CLI::App* command = add_command("verify", kVerifyDescription, kVerifyFooter);
    add_path(command, "BUNDLE", verify_.bundle, "Folder made by 'compress'");
    command->add_option("--against", verify_.against, "Compare with this source, too, bit for bit")
        ->option_text("SOURCE")
        ->group("Work");
    add_common(command);
  }

  void add_transcode() {
    CLI::App* command = add_command("transcode", kTranscodeDescription, kTranscodeFooter);
    add_path(command, "BUNDLE", transcode_.bundle, "Folder made by 'compress' or 'transcode'");
    add_path(command, "OUT", transcode_.out, "Folder to make; must not exist");
    add_profile(command, transcode_.profile)->required();
    add_no_verify(command, transcode_.verify);
    add_common(command);
  }

  void add_inspect() {
    CLI::App* command = add_command("inspect", kInspectDescription, kInspectFooter);
    add_path(command, "PATH", inspect_.path, "Bundle, checkpoint folder or .safetensors file");
    add_report(command, inspect_.report);
    command
        ->add_flag_callback(
            "--no-histograms", [this] { inspect_.histograms = false; },
            "Read headers only: no entropy, histograms or estimates")
        ->group("Work");
    add_common(command);
  }

  void add_synth() {
    CLI::App* command = add_command("synth", kSynthDescription, kSynthFooter);
    command->add_option("OUT", synth_.out, "Folder to make; must not exist");
    auto* model =
        command->add_option("--model", synth_.model, "The model; --list shows the names")->option_text("NAME");
    command
        ->add_option_function<std::string>(
            "--seed",
            [this](const std::string& text) {
              if (!parse_number(text, synth_.seed)) {
                throw CLI::ValidationError(fmt::format("--seed {} is not a number from 0 to 2^64 - 1", text));
              }
            },
            "Seed of the random weights")
        ->option_text("S")
        ->default_str(std::to_string(synth_.seed))
        ->group("Work");
    auto* list = command->add_flag("--list", synth_.list, "Print the known models and exit");
    model->group("Work");
    list->group("Work")->excludes(model);
    add_common(command);
  }

  static CLI::Option* add_token_list(CLI::App* command, const char* name, std::vector<std::uint32_t>& tokens,
                                     const char* description) {
    return command->add_option(name, tokens, description)
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(CLI::Range(1U, kMaxMatmulTokens))
        ->option_text("N,N,...");
  }

  void add_tune() {
    CLI::App* command = add_command("tune", kTuneDescription, kTuneFooter);
    command->add_option("MODEL", tune_.model, "Checkpoint or bundle whose matrices are tuned; its headers are read");
    command->add_option("--known-model", tune_.known_model, "One that 'unweight synth --list' names, without its files")
        ->option_text("NAME")
        ->group("What");
    command
        ->add_option_function<std::vector<std::string>>(
            "--shapes",
            [this](const std::vector<std::string>& texts) {
              for (const std::string& text : texts) {
                if (parse_shape(text, tune_.shapes.emplace_back())) continue;
                throw CLI::ValidationError(fmt::format("--shapes {} is not ROWSxCOLS or ROWSxCOLS:COUNT", text));
              }
            },
            "Shapes of matrices, and how many of each")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->option_text("ROWSxCOLS[:COUNT],...")
        ->group("What");
    command
        ->add_flag_callback(
            "--separate", [this] { tune_.merging = Merging::kSeparate; },
            "q, k, v and gate, up are matrices of their own, not merged")
        ->group("What");
    command->add_option("--from", tune_.from, "Decide from the times in this plan; measure nothing, need no GPU")
        ->option_text("PLAN")
        ->group("What");
    add_token_list(command, "--batch-sizes", tune_.memory.batch_sizes, "Numbers of tokens that count")
        ->default_str("1,8,32")
        ->group("Work");
    add_token_list(command, "--tokens", tune_.tokens, "Numbers of tokens to measure, besides")
        ->default_str("1,2,4,...,4096")
        ->group("Work");
    command
        ->add_option_function<std::string>(
            "--objective",
            [this](const std::string& text) {
              for (const Objective each : {Objective::kLatency, Objective::kMemory, Objective::kBalanced}) {
                if (text != objective_name(each)) continue;
                tune_.memory.objective = each;
                return;
              }
              throw CLI::ValidationError(fmt::format("--objective {} is none of latency, memory, balanced", text));
            },
            "'latency', 'memory' or 'balanced'")
        ->option_text("NAME")
        ->default_str("balanced")
        ->group("Work");
    command
        ->add_option_function<std::string>(
            "--memory-budget",
            [this](const std::string& text) {
              if (parse_bytes(text, tune_.memory.memory_budget_bytes)) return;
              throw CLI::ValidationError(fmt::format("--memory-budget {} is not a size like 24GB or 22.5GiB", text));
            },
            "For weights, scratch and workspace; the GPU's memory otherwise")
        ->option_text("SIZE")
        ->group("Work");
    command
        ->add_flag_callback(
            "--isolated", [this] { tune_.memory.dependent_launch = false; }, "Decide by times without dependent launch")
        ->group("Work");
    command->add_option("--seconds", tune_.seconds, "Time for measuring, about; 0: no limit")
        ->option_text("S")
        ->check(CLI::Range(0.0, 1e6))
        ->default_str("60")
        ->group("Work");
    command->add_flag("--exhaustive", tune_.exhaustive, "Time every candidate; with --seconds 0")->group("Work");
    command->add_option("-o,--output", tune_.out, "Plan to write; an existing one is the incumbent and is replaced")
        ->option_text("PLAN")
        ->required()
        ->group("Output");
    add_report(command, tune_.report);
    add_output(command);
  }

  static void add_report(CLI::App* command, std::filesystem::path& report) {
    command->add_option("--report", report, "Also write a self-contained page; an existing one is replaced")
        ->option_text("FILE.html")
        ->group("Output");
  }

  Result<Command> check_tune() const {
    const int sources =
        (tune_.model.empty() ? 0 : 1) + (tune_.known_model.empty() ? 0 : 1) + (tune_.shapes.empty() ? 0 : 1);
    if (sources > 1) return usage_error("MODEL, --known-model and --shapes exclude each other");
    if (sources == 0 && tune_.from.empty()) return usage_error("one of MODEL, --known-model and --shapes is required");
    return tune_;
  }

  void add_plan() {
    CLI::App* command = add_command("plan", kPlanDescription, kPlanFooter);
    command
        ->add_option_function<std::string>(
            "ACTION",
            [this](const std::string& text) {
              constexpr std::pair<std::string_view, PlanAction> kActions[] = {{"show", PlanAction::kShow},
                                                                              {"explain", PlanAction::kExplain},
                                                                              {"diff", PlanAction::kDiff},
                                                                              {"table", PlanAction::kTable}};
              for (const auto& [name, action] : kActions) {
                if (text != name) continue;
                plan_.action = action;
                return;
              }
              throw CLI::ValidationError(fmt::format("ACTION {} is none of show, explain, diff, table", text));
            },
            "show, explain, diff or table")
        ->required();
    add_path(command, "PLAN", plan_.file, "A plan file");
    command->add_option("OTHER", plan_.other, "The plan that 'diff' compares it with");
    command
        ->add_option_function<std::string>(
            "--shape",
            [this](const std::string& text) {
              if (parse_shape(text, plan_.shape.emplace()) && text.find(':') == text.npos) return;
              throw CLI::ValidationError(fmt::format("--shape {} is not ROWSxCOLS", text));
            },
            "Of 'explain': the weight")
        ->option_text("ROWSxCOLS")
        ->group("What");
    command->add_option("--tokens", plan_.tokens, "Of 'explain': the number of tokens; otherwise all cells")
        ->option_text("N")
        ->check(CLI::Range(1U, kMaxMatmulTokens))
        ->group("What");
    add_report(command, plan_.report);
    add_output(command);
  }

  Result<Command> check_plan() const {
    if (plan_.action == PlanAction::kDiff && plan_.other.empty()) return usage_error("diff: OTHER is required");
    if (plan_.action != PlanAction::kDiff && !plan_.other.empty()) return usage_error("OTHER is for diff");
    if (plan_.action == PlanAction::kExplain && !plan_.shape) return usage_error("explain: --shape is required");
    if (plan_.action != PlanAction::kExplain && (plan_.shape || plan_.tokens != 0)) {
      return usage_error("--shape and --tokens are for explain");
    }
    if (plan_.action != PlanAction::kShow && !plan_.report.empty()) return usage_error("--report is for show");
    return plan_;
  }

  void add_bench() {
    CLI::App* command = add_command("bench", kBenchDescription, kBenchFooter);
    command->prefix_command();  // all that follows is the benchmark's
    command->set_help_flag("-h,--help", "Print this help and exit");
  }

  CLI::App app_;
  bool json_ = false;
  bool quiet_ = false;
  unsigned threads_ = 0;
  CompressArguments compress_;
  FinishArguments finish_;
  DecompressArguments decompress_;
  VerifyArguments verify_;
  TranscodeArguments transcode_;
  InspectArguments inspect_;
  SynthArguments synth_;
  TuneArguments tune_;
  PlanArguments plan_;
};

}  // namespace

Result<Command> parse_arguments(int argc, const char* const* argv) { return CommandLine().parse(argc, argv); }

OutputMode requested_mode(int argc, const char* const* argv) noexcept {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--") break;
    if (argument == "--json") return OutputMode::kJson;
  }
  return OutputMode::kNormal;
}

}  // namespace unweight::cli
