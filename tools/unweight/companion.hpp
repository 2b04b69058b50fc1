// SPDX-License-Identifier: Apache-2.0
//
// Programs that come with the tool: those that need a GPU are programs of their own, so that this one needs neither a
// CUDA toolkit nor cuBLAS.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::cli {

/// The program of that name: installed, or in `build_folder`, where the tool's own build has it, relative to the tool's
/// folder. `what` begins the error: "bench: this unweight was built without its GPU benchmark". Errors: `code`.
[[nodiscard]] Result<std::filesystem::path> find_companion(std::string_view name, std::string_view build_folder,
                                                           std::string_view what, ErrorCode code);

/// Runs a program, gives its standard output line by line to `take_line`, and returns its exit code, or 128 and its
/// signal. Where `take_line` returns false the program gets SIGTERM. Standard error is the tool's own. Errors: kIo.
[[nodiscard]] Result<int> run_companion(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                                        const std::function<bool(std::string_view)>& take_line);

}  // namespace unweight::cli
