// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <failure.hpp>
#include <fmt/format.h>
#include <fstream>
#include <json.hpp>

namespace unweight::bench {

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string json_spread(const Spread& s) {
  return fmt::format(R"({{"median": {:.3f}, "min": {:.3f}, "max": {:.3f}}})", s.median, s.min, s.max);
}

std::string json_origin(const std::string& command, const std::string& commit, int rounds, const DeviceFacts& facts) {
  return fmt::format(
      " \"command\": {},\n \"commit\": {},\n \"device\": {},\n \"driver\": {},\n \"cuda_driver\": {},\n"
      " \"cuda_runtime\": {},\n \"multiprocessors\": {},\n \"l2_bytes\": {},\n \"max_clocks\": {},\n \"rounds\": {}",
      json_string(command), json_string(commit), json_string(facts.name), json_string(facts.driver),
      json_string(facts.cuda_driver), json_string(facts.cuda_runtime), facts.multiprocessors, facts.l2_bytes,
      json_string(facts.max_clocks), rounds);
}

std::string command_line(int argc, char** argv) {
  std::string command = program_invocation_short_name;
  for (int i = 1; i < argc; ++i) command += std::string(" ") + argv[i];
  return command;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) stop("cannot write " + path);
}

}  // namespace unweight::bench
