// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <tune/candidates.hpp>
#include <tune/choice.hpp>

namespace unweight::tune {
namespace {

/// Whether a member's values are other candidates.
bool varies(const ConfigMember& member) { return member.role != MemberRole::kLaunch; }

/// Whether it differs from another candidate only in what makes no difference for so many tokens.
bool is_repeated(const MatmulConfig& config, std::uint32_t bucket) {
  return !config.uses_stages(bucket_tokens(bucket)) && config.stages != MatmulConfig{}.stages;
}

/// The next combination of all members that vary, the last member changing first; false after the last.
bool advance(MatmulConfig& config) {
  for (auto member = kConfigMembers.rbegin(); member != kConfigMembers.rend(); ++member) {
    if (!varies(*member)) continue;
    const auto next = std::ranges::upper_bound(member->values, member->get(config));
    if (next != member->values.end()) {
      member->set(config, *next);
      return true;
    }
    member->set(config, member->values.front());
  }
  return false;
}

MatmulConfig first_config(bool dependent_launch) {
  MatmulConfig config;
  for (const ConfigMember& member : kConfigMembers) {
    if (varies(member)) member.set(config, member.values.front());
  }
  config.dependent_launch = dependent_launch;
  return config;
}

}  // namespace

Result<void> legal_in_bucket(std::uint32_t bucket, const MatmulConfig& config, const CanImplement& can_implement) {
  constexpr std::uint32_t kMost = 64;
  const std::uint32_t begin = bucket_begin(bucket), end = bucket_tokens(bucket);
  const std::uint32_t step = std::max(1U, (end - begin + 1) / kMost);
  for (std::uint32_t tokens = begin; tokens < end; tokens += step) {
    if (auto ok = can_implement(tokens, config); !ok) return ok;
  }
  return can_implement(end, config);
}

ConfigCandidates config_candidates(std::uint32_t bucket, bool dependent_launch, const CanImplement& can_implement) {
  ConfigCandidates candidates;
  MatmulConfig config = first_config(dependent_launch);
  do {
    if (is_repeated(config, bucket)) continue;
    if (auto legal = legal_in_bucket(bucket, config, can_implement)) {
      candidates.legal.push_back(config);
    } else {
      candidates.refused.push_back({config, std::move(legal.error().message)});
    }
  } while (advance(config));
  return candidates;
}

}  // namespace unweight::tune
