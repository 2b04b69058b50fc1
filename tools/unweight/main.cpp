// SPDX-License-Identifier: Apache-2.0
#include <commands.hpp>
#include <exception>
#include <interrupt.hpp>
#include <new>
#include <variant>

namespace unweight::cli {

int run(const PrintText& arguments) { return print_result(arguments.text); }

int print_failure(Error error, OutputMode mode, std::string_view advice) {
  if (error.code == ErrorCode::kCancelled) error.message = advice;
  return print_error(error, mode);
}

namespace {

int run_command_line(int argc, const char* const* argv) {
  const auto command = parse_arguments(argc, argv);
  if (!command) return print_error(command.error(), requested_mode(argc, argv));
  catch_interrupts();
  return std::visit([](const auto& arguments) { return run(arguments); }, *command);
}

}  // namespace
}  // namespace unweight::cli

int main(int argc, char** argv) {
  using unweight::ErrorCode;
  const auto mode = unweight::cli::requested_mode(argc, argv);
  try {
    return unweight::cli::run_command_line(argc, argv);
  } catch (const std::bad_alloc&) {
    return unweight::cli::print_error({ErrorCode::kOutOfMemory, "out of memory"}, mode);
  } catch (const std::exception& error) {
    return unweight::cli::print_error({ErrorCode::kInternal, error.what()}, mode);
  }
}
