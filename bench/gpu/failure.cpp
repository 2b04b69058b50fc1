// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdlib>
#include <failure.hpp>
#include <fmt/format.h>

namespace unweight::bench {
namespace {

[[noreturn]] void end(int status, const std::string& message) {
  fmt::print(stderr, "{}: {}\n", program_invocation_short_name, message);
  std::exit(status);
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) end(3, fmt::format("{}: {}", what, cudaGetErrorString(error)));
}

void stop(const std::string& message) { end(2, message); }

void stop(const Error& error) {
  const bool device = error.code == ErrorCode::kNoDevice || error.code == ErrorCode::kCuda;
  end(device ? 3 : 2, error.message.empty() ? error_name(error.code) : error.message);
}

}  // namespace unweight::bench
