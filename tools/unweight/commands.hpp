// SPDX-License-Identifier: Apache-2.0
//
// The commands: each does its work, prints its outcome and returns the exit code.
#pragma once

#include <arguments.hpp>
#include <string_view>

namespace unweight::cli {

[[nodiscard]] int run(const PrintText& arguments);
[[nodiscard]] int run(const CompressArguments& arguments);
[[nodiscard]] int run(const FinishArguments& arguments);
[[nodiscard]] int run(const DecompressArguments& arguments);
[[nodiscard]] int run(const VerifyArguments& arguments);
[[nodiscard]] int run(const TranscodeArguments& arguments);
[[nodiscard]] int run(const InspectArguments& arguments);
[[nodiscard]] int run(const SynthArguments& arguments);
[[nodiscard]] int run(const TuneArguments& arguments);
[[nodiscard]] int run(const PlanArguments& arguments);
[[nodiscard]] int run(const BenchArguments& arguments);

/// Prints the error of a command that a signal can stop. `advice` says what to do after that.
[[nodiscard]] int print_failure(Error error, OutputMode mode, std::string_view advice);

inline constexpr std::string_view kContinueAdvice = "stopped; run the same command to continue";
inline constexpr std::string_view kRepeatAdvice = "stopped; nothing was changed";

}  // namespace unweight::cli
