// SPDX-License-Identifier: Apache-2.0
//
// The members of a configuration, listed once: all that enumerates, prints or reads configurations goes by this list.
// A new member of MatmulConfig needs a line here, and the compiler says so.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unweight/plan.hpp>

namespace unweight::tune {

/// How a search treats a member.
enum class MemberRole : std::uint8_t {
  kFamily,  ///< another value is another way to work: all are tried
  kDepth,   ///< a matter of degree: first a middle value, then, if that is any good, the others
  kLaunch,  ///< decided by the caller, not searched
};

struct ConfigMember {
  std::string_view name;
  std::uint32_t MatmulConfig::*number;  ///< this one or the other, which is null
  bool MatmulConfig::*flag;
  std::span<const std::uint32_t> values;  ///< that candidates have, in increasing order
  MemberRole role;

  [[nodiscard]] constexpr std::uint32_t get(const MatmulConfig& config) const {
    return flag != nullptr ? std::uint32_t{config.*flag} : config.*number;
  }
  constexpr void set(MatmulConfig& config, std::uint32_t value) const {
    if (flag != nullptr) {
      config.*flag = value != 0;
    } else {
      config.*number = value;
    }
  }
};

namespace members {
inline constexpr std::uint32_t kFlag[] = {0, 1};
inline constexpr std::uint32_t kStrips[] = {1, 2, 4, 8, 12, 16};
inline constexpr std::uint32_t kStages[] = {2, 3, 4, 5, 6, 7, 8};

constexpr ConfigMember number(std::string_view name, std::uint32_t MatmulConfig::*member,
                              std::span<const std::uint32_t> values, MemberRole role) {
  return {name, member, nullptr, values, role};
}
constexpr ConfigMember flag(std::string_view name, bool MatmulConfig::*member, MemberRole role = MemberRole::kFamily) {
  return {name, nullptr, member, kFlag, role};
}
}  // namespace members

/// In the order of MatmulConfig.
inline constexpr auto kConfigMembers = std::to_array<ConfigMember>({
    members::number("strips", &MatmulConfig::strips, members::kStrips, MemberRole::kFamily),
    members::number("stages", &MatmulConfig::stages, members::kStages, MemberRole::kDepth),
    members::flag("split", &MatmulConfig::split),
    members::flag("dependent_launch", &MatmulConfig::dependent_launch, MemberRole::kLaunch),
    members::flag("warpgroup", &MatmulConfig::warpgroup),
});

/// Number of members; does not compile when MatmulConfig has more or fewer than the list.
constexpr std::size_t count_members(const MatmulConfig& config) {
  const auto& [strips, stages, split, dependent_launch, warpgroup] = config;
  const void* const all[] = {&strips, &stages, &split, &dependent_launch, &warpgroup};
  return std::size(all);
}
static_assert(count_members(MatmulConfig{}) == kConfigMembers.size(), "every member of MatmulConfig is in the list");

[[nodiscard]] bool same_config(const MatmulConfig& a, const MatmulConfig& b) noexcept;

/// "strips 2, stages 4, split".
[[nodiscard]] std::string describe_config(const MatmulConfig& config);

/// 128 hexadecimal digits, and back; false for any other text.
[[nodiscard]] std::string algorithm_text(const CublasAlgorithm& algorithm);
[[nodiscard]] bool parse_algorithm(std::string_view text, CublasAlgorithm& algorithm);

}  // namespace unweight::tune
