// SPDX-License-Identifier: Apache-2.0
#include "support/process.hpp"
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace unweight::test {

Process::Process(const ProcessSetup& setup) {
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    bool replaced = false;
    for (const std::string& added : setup.environment) {
      replaced = replaced || text.starts_with(added.substr(0, added.find('=') + 1));
    }
    if (!replaced) environment.emplace_back(text);
  }
  environment.insert(environment.end(), setup.environment.begin(), setup.environment.end());
  const auto pointers_to = [](std::vector<char*> pointers, const std::vector<std::string>& texts) {
    for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
    pointers.push_back(nullptr);
    return pointers;
  };

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string out = setup.standard_output.empty() ? (output_ / "out").native() : setup.standard_output.native();
  const std::string err = (output_ / "err").native();
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT, 0600);
  if (setup.standard_error >= 0) {
    posix_spawn_file_actions_adddup2(&actions, setup.standard_error, STDERR_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT, 0600);
  }
  if (!setup.folder.empty()) posix_spawn_file_actions_addchdir_np(&actions, setup.folder.c_str());
  const int error = posix_spawnp(&pid_, setup.program.c_str(), &actions, nullptr,
                                 pointers_to({const_cast<char*>(setup.program.c_str())}, setup.arguments).data(),
                                 pointers_to({}, environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    pid_ = -1;
    ADD_FAILURE() << "cannot run " << setup.program << ": " << std::strerror(error);
  }
}

Process::~Process() {
  if (pid_ < 0) return;
  send(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::send(int signal) const {
  if (pid_ > 0) ::kill(pid_, signal);
}

ProcessOutcome Process::wait() {
  ProcessOutcome outcome;
  if (pid_ < 0) return outcome;
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  outcome.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (std::filesystem::exists(output_ / "out")) outcome.out = read_file(output_ / "out");
  if (std::filesystem::exists(output_ / "err")) outcome.err = read_file(output_ / "err");
  return outcome;
}

ProcessOutcome run_process(const ProcessSetup& setup) { return Process(setup).wait(); }

}  // namespace unweight::test
