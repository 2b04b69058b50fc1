// SPDX-License-Identifier: Apache-2.0
//
// What 'compress' and 'finish' print.
#pragma once

#include <commands.hpp>
#include <unweight/checkpoint.hpp>

namespace unweight::cli {

[[nodiscard]] int print_compress_report(const CompressReport& report, const CommonArguments& common,
                                        const std::filesystem::path& source, const std::filesystem::path& out);

}  // namespace unweight::cli
