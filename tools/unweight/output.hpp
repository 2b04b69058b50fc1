// SPDX-License-Identifier: Apache-2.0
//
// Standard output, errors and exit codes.
#pragma once

#include <cstdint>
#include <string_view>
#include <unweight/result.hpp>

namespace unweight::cli {

/// Exit codes of the tool. A signal that stopped it adds 128, as shells do.
enum class ExitCode : int {
  kSuccess = 0,
  kUsage = 1,   ///< arguments; an output that exists already
  kData = 2,    ///< files and everything else
  kDevice = 3,  ///< GPU
};

[[nodiscard]] ExitCode exit_code_of(ErrorCode code) noexcept;

/// What a command does besides its work.
enum class OutputMode : std::uint8_t {
  kNormal,  ///< progress on a terminal, a summary
  kQuiet,   ///< errors and warnings only
  kJson,    ///< one JSON object on standard output
};

/// Writes to standard output and makes sure that it arrived; returns the command's exit code.
[[nodiscard]] int print_result(std::string_view text);

/// Prints the outcome of a command that succeeded in the form that `mode` asks for, and returns the exit code. Only the
/// form that is printed is made; each is a callable that returns text.
template <class MakeJson, class MakeText>
[[nodiscard]] int print_outcome(OutputMode mode, const MakeJson& make_json, const MakeText& make_text) {
  switch (mode) {
    case OutputMode::kJson:
      return print_result(make_json() + "\n");
    case OutputMode::kNormal:
      return print_result(make_text());
    case OutputMode::kQuiet:
      break;
  }
  return static_cast<int>(ExitCode::kSuccess);
}

/// Tells of a failure: one line on standard error, with kJson also {"error": ...} on standard output. Returns the exit
/// code. Text from files cannot break the line.
[[nodiscard]] int print_error(const Error& error, OutputMode mode);

/// One line on standard error.
void print_warning(std::string_view message);

}  // namespace unweight::cli
