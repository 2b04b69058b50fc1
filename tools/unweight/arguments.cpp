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
    command->add_option("--report", inspect_.report, "Also write a self-contained page; an existing one is replaced")
        ->option_text("FILE.html")
        ->group("Output");
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
