// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <interrupt.hpp>
#include <json.hpp>
#include <output.hpp>
#include <text.hpp>

namespace unweight::cli {
namespace {

bool write_to(std::FILE* stream, std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stream) == text.size() && std::fflush(stream) == 0;
}

/// A message without what a line cannot hold.
void print_line(std::string_view message) {
  static_cast<void>(write_to(stderr, fmt::format("unweight: {}\n", printable(message))));
}

}  // namespace

ExitCode exit_code_of(ErrorCode code) noexcept {
  const auto number = static_cast<std::uint32_t>(code);
  if (code == ErrorCode::kOk) return ExitCode::kSuccess;
  if (code == ErrorCode::kExists || (number >= 10 && number < 20)) return ExitCode::kUsage;
  if (number >= 50 && number < 60) return ExitCode::kDevice;
  return ExitCode::kData;
}

int print_result(std::string_view text) {
  if (write_to(stdout, text)) return static_cast<int>(ExitCode::kSuccess);
  print_line(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
  return static_cast<int>(ExitCode::kData);
}

int print_error(const Error& error, OutputMode mode) {
  const int signal = error.code == ErrorCode::kCancelled ? received_signal() : 0;
  print_line(error.message);
  if (mode == OutputMode::kJson) {
    Json json;
    json.begin_object();
    json.key("error");
    json.begin_object();
    json.member("code", static_cast<std::uint32_t>(error.code));
    json.member("name", error_name(error.code));
    json.member("message", error.message);
    json.end_object();
    json.end_object();
    if (print_result(json.text() + "\n") != 0) return static_cast<int>(ExitCode::kData);
  }
  return signal != 0 ? 128 + signal : static_cast<int>(exit_code_of(error.code));
}

void print_warning(std::string_view message) { print_line(fmt::format("warning: {}", message)); }

}  // namespace unweight::cli
