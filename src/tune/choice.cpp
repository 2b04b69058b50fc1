// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <tune/choice.hpp>

namespace unweight {

bool operator==(const Choice& a, const Choice& b) noexcept {
  if (a.pipeline != b.pipeline) return false;
  return a.pipeline == Pipeline::kFused ? tune::same_config(a.config, b.config) : a.algorithm == b.algorithm;
}

std::string describe(const Choice& choice) {
  std::string text(pipeline_name(choice.pipeline));
  if (choice.pipeline == Pipeline::kFused) return text + ", " + tune::describe_config(choice.config);
  if (choice.algorithm.first_proposal()) return text + ", first proposal of cuBLASLt";
  // The words are cuBLASLt's own and long: a hash tells algorithms apart.
  std::uint32_t hash = 2166136261;
  for (const char digit : tune::algorithm_text(choice.algorithm)) {
    hash = (hash ^ static_cast<unsigned char>(digit)) * 16777619;  // FNV-1a
  }
  return text + fmt::format(", cuBLASLt algorithm {:08x}", hash);
}

namespace tune {

bool same_config(const MatmulConfig& a, const MatmulConfig& b) noexcept {
  return std::ranges::all_of(kConfigMembers,
                             [&](const ConfigMember& member) { return member.get(a) == member.get(b); });
}

std::string describe_config(const MatmulConfig& config) {
  std::string text;
  for (const ConfigMember& member : kConfigMembers) {
    const std::uint32_t value = member.get(config);
    if (member.flag != nullptr && value == 0) continue;
    if (!text.empty()) text += ", ";
    text += member.name;
    if (member.flag == nullptr) text += fmt::format(" {}", value);
  }
  std::ranges::replace(text, '_', ' ');
  return text;
}

std::string algorithm_text(const CublasAlgorithm& algorithm) {
  std::string text;
  for (const std::uint64_t word : algorithm.words) text += fmt::format("{:016x}", word);
  return text;
}

bool parse_algorithm(std::string_view text, CublasAlgorithm& algorithm) {
  constexpr std::size_t kDigits = 16;
  if (text.size() != kDigits * algorithm.words.size()) return false;
  for (std::uint64_t& word : algorithm.words) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + kDigits, word, 16);
    if (error != std::errc() || end != text.data() + kDigits) return false;
    text.remove_prefix(kDigits);
  }
  return true;
}

}  // namespace tune
}  // namespace unweight
