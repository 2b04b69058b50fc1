// SPDX-License-Identifier: Apache-2.0
//
// The configurations of the fused kernels that exist for a problem, and why the others do not.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unweight/plan.hpp>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::tune {

/// As unweight::can_implement() for one weight.
using CanImplement = std::function<Result<void>(std::uint32_t tokens, const MatmulConfig& config)>;

/// Whether a configuration is legal for every number of tokens of a bucket; the error names the first for which it is
/// not. Tries all of up to 64 numbers, otherwise the ends and some between.
[[nodiscard]] Result<void> legal_in_bucket(std::uint32_t bucket, const MatmulConfig& config,
                                           const CanImplement& can_implement);

struct RefusedConfig {
  MatmulConfig config;
  std::string reason;
};

struct ConfigCandidates {
  std::vector<MatmulConfig> legal;
  std::vector<RefusedConfig> refused;
};

/// Every combination of the members' values (choice.hpp) that can make a difference, in a fixed order.
[[nodiscard]] ConfigCandidates config_candidates(std::uint32_t bucket, bool dependent_launch,
                                                 const CanImplement& can_implement);

}  // namespace unweight::tune
