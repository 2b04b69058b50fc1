// SPDX-License-Identifier: Apache-2.0
//
// The benchmark is a program of its own: it needs cuBLAS, which this tool must not need.
#include <array>
#include <cerrno>
#include <commands.hpp>
#include <filesystem>
#include <fmt/format.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace unweight::cli {
namespace {

namespace fs = std::filesystem;

/// Where the benchmark may be: installed, and in the build's own folder.
std::array<fs::path, 2> places_of_benchmark() {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  return {(folder / UNWEIGHT_BIN_TO_LIBEXEC / "matmul_bench").lexically_normal(),
          (folder / "../../bench/gpu/matmul_bench").lexically_normal()};
}

}  // namespace

int run(const BenchArguments& arguments) {
  const auto places = places_of_benchmark();
  for (const fs::path& place : places) {
    std::error_code error;
    if (!fs::is_regular_file(place, error)) continue;
    std::string program = place.string();
    std::vector<std::string> words = arguments.arguments;
    std::vector<char*> argv = {program.data()};
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    return print_error(
        {ErrorCode::kIo, fmt::format("bench: cannot run {}: {}", program, std::generic_category().message(errno))},
        OutputMode::kNormal);
  }
  return print_error({ErrorCode::kNotFound,
                      fmt::format("bench: this unweight was built without its GPU benchmark: there is no {}, and no {}",
                                  places[0].string(), places[1].string())},
                     OutputMode::kNormal);
}

}  // namespace unweight::cli
