// SPDX-License-Identifier: Apache-2.0
//
// The command line: what each command takes, its help, and the rules between options.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <output.hpp>
#include <string>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/tune.hpp>
#include <variant>
#include <vector>

namespace unweight::cli {

struct CommonArguments {
  OutputMode mode = OutputMode::kNormal;
  unsigned threads = 0;
};

struct CompressArguments : CommonArguments {
  std::filesystem::path source;
  std::filesystem::path out;
  Profile profile = Profile::kRuntime;
  bool verify = true;
  std::uint32_t shard_index = 0;
  std::uint32_t shard_count = 1;
};

struct TranscodeArguments : CommonArguments {
  std::filesystem::path bundle;
  std::filesystem::path out;
  Profile profile = Profile::kRuntime;
  bool verify = true;
};

struct FinishArguments : CommonArguments {
  std::filesystem::path source;
  std::filesystem::path out;
};

struct DecompressArguments : CommonArguments {
  std::filesystem::path bundle;
  std::filesystem::path out;
};

struct VerifyArguments : CommonArguments {
  std::filesystem::path bundle;
  std::filesystem::path against;
};

struct InspectArguments : CommonArguments {
  std::filesystem::path path;
  std::filesystem::path report;
  bool histograms = true;
};

struct SynthArguments : CommonArguments {
  std::string model;
  std::uint64_t seed = 1;
  std::filesystem::path out;
  bool list = false;
};

struct TuneArguments {
  OutputMode mode = OutputMode::kNormal;
  // What: one of these.
  std::filesystem::path model;
  std::string known_model;
  std::vector<ShapeCount> shapes;
  Merging merging = Merging::kMerged;
  std::vector<std::uint32_t> tokens;  ///< to be measured, besides the batch sizes
  double seconds = 60;
  bool exhaustive = false;
  std::filesystem::path from;  ///< a plan to start from, without measuring
  MemoryOptions memory;
  std::filesystem::path out;
  std::filesystem::path report;
  std::string command;  ///< as it was typed
};

enum class PlanAction : std::uint8_t { kShow, kExplain, kDiff, kTable };

struct PlanArguments {
  OutputMode mode = OutputMode::kNormal;
  PlanAction action = PlanAction::kShow;
  std::filesystem::path file, other;
  std::optional<ShapeCount> shape;
  std::uint32_t tokens = 0;  ///< 0: all
  std::filesystem::path report;
};

struct BenchArguments {
  std::vector<std::string> arguments;  ///< for the benchmark, as they are
};

/// Text that was asked for: help or the version.
struct PrintText {
  std::string text;
};

using Command =
    std::variant<PrintText, CompressArguments, FinishArguments, DecompressArguments, VerifyArguments,
                 TranscodeArguments, InspectArguments, SynthArguments, TuneArguments, PlanArguments, BenchArguments>;

/// Parses the command line. Errors: kInvalidArgument.
[[nodiscard]] Result<Command> parse_arguments(int argc, const char* const* argv);

/// The mode of errors that come before the command line is understood: --json anywhere asks for JSON.
[[nodiscard]] OutputMode requested_mode(int argc, const char* const* argv) noexcept;

}  // namespace unweight::cli
