// SPDX-License-Identifier: Apache-2.0
//
// The benchmark is a program of its own: it needs cuBLAS, which this tool must not need.
#include <cerrno>
#include <commands.hpp>
#include <companion.hpp>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace unweight::cli {

int run(const BenchArguments& arguments) {
  const auto place = find_companion("matmul_bench", "../../bench/gpu",
                                    "bench: this unweight was built without its GPU benchmark", ErrorCode::kNotFound);
  if (!place) return print_error(place.error(), OutputMode::kNormal);
  std::string program = place->native();
  std::vector<std::string> words = arguments.arguments;
  std::vector<char*> argv = {program.data()};
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  return print_error(
      {ErrorCode::kIo, fmt::format("bench: cannot run {}: {}", program, std::generic_category().message(errno))},
      OutputMode::kNormal);
}

}  // namespace unweight::cli
