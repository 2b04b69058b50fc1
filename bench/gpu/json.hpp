// SPDX-License-Identifier: Apache-2.0
//
// The pieces that all results files have.
#pragma once

#include <device_facts.hpp>
#include <graph_timer.hpp>
#include <string>

namespace unweight::bench {

/// With its quotes.
[[nodiscard]] std::string json_string(const std::string& text);

[[nodiscard]] std::string json_spread(const Spread& spread);

/// The members that say what ran where, without braces.
[[nodiscard]] std::string json_origin(const std::string& command, const std::string& commit, int rounds,
                                      const DeviceFacts& facts);

/// "program argument argument": the program without its folder.
[[nodiscard]] std::string command_line(int argc, char** argv);

/// Ends the program if the file cannot be written.
void write_file(const std::string& path, const std::string& text);

}  // namespace unweight::bench
