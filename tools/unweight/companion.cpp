// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <companion.hpp>
#include <csignal>
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <spawn.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

extern char** environ;

namespace unweight::cli {
namespace {

namespace fs = std::filesystem;

tl::unexpected<Error> io_failure(const fs::path& program, int error_number) {
  return fail(ErrorCode::kIo,
              fmt::format("cannot run {}: {}", program.native(), std::generic_category().message(error_number)));
}

/// Starts the program with its standard output in a pipe.
Result<pid_t> start(const fs::path& program, const std::vector<std::string>& arguments, int read_end, int write_end) {
  std::string name = program.native();
  std::vector<std::string> words = arguments;
  std::vector<char*> argv = {name.data()};
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  if (const int error = posix_spawn_file_actions_init(&actions); error != 0) return io_failure(program, error);
  int error = posix_spawn_file_actions_adddup2(&actions, write_end, STDOUT_FILENO);
  if (error == 0) error = posix_spawn_file_actions_addclose(&actions, read_end);
  if (error == 0) error = posix_spawn_file_actions_addclose(&actions, write_end);
  pid_t child = 0;
  if (error == 0) error = posix_spawn(&child, name.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return io_failure(program, error);
  return child;
}

}  // namespace

Result<fs::path> find_companion(std::string_view name, std::string_view build_folder, std::string_view what,
                                ErrorCode code) {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  const std::array<fs::path, 2> places = {(folder / UNWEIGHT_BIN_TO_LIBEXEC / name).lexically_normal(),
                                          (folder / build_folder / name).lexically_normal()};
  for (const fs::path& place : places) {
    if (fs::is_regular_file(place, error)) return place;
  }
  return fail(code, fmt::format("{}: there is no {}, and no {}", what, places[0].native(), places[1].native()));
}

Result<int> run_companion(const fs::path& program, const std::vector<std::string>& arguments,
                          const std::function<bool(std::string_view)>& take_line) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return io_failure(program, errno);
  const auto child = start(program, arguments, ends[0], ends[1]);
  close(ends[1]);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> output(fdopen(ends[0], "r"), std::fclose);
  if (!child) return tl::unexpected(child.error());
  std::string line;
  for (int c = std::fgetc(output.get()); c != EOF; c = std::fgetc(output.get())) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    if (!take_line(line)) kill(*child, SIGTERM);
    line.clear();
  }
  int status = 0;
  while (waitpid(*child, &status, 0) < 0) {
    if (errno != EINTR) return io_failure(program, errno);
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace unweight::cli
