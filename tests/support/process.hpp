// SPDX-License-Identifier: Apache-2.0
//
// Programs run by tests.
#pragma once

#include <filesystem>
#include <string>
#include <support/checkpoints.hpp>
#include <vector>

namespace unweight::test {

struct ProcessSetup {
  std::string program;                    ///< a path, or a name that is looked up in PATH
  std::vector<std::string> arguments;     ///< without the program
  std::filesystem::path folder;           ///< working folder; empty: the test's own
  std::vector<std::string> environment;   ///< "NAME=value", besides the test's own variables
  std::filesystem::path standard_output;  ///< empty: captured
  int standard_error = -1;                ///< a descriptor to use; -1: captured
};

struct ProcessOutcome {
  int exit_code = -1;  ///< 128 + signal when a signal ended it, as in a shell
  std::string out;
  std::string err;
};

/// A program that runs beside the test.
class Process {
 public:
  explicit Process(const ProcessSetup& setup);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  /// Kills what still runs.
  ~Process();

  void send(int signal) const;
  [[nodiscard]] ProcessOutcome wait();

 private:
  TempFolder output_;
  int pid_ = -1;
};

[[nodiscard]] ProcessOutcome run_process(const ProcessSetup& setup);

}  // namespace unweight::test
