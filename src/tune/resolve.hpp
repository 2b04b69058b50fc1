// SPDX-License-Identifier: Apache-2.0
//
// From plans and rules to one choice a bucket. All that is asked while a weight is prepared; a call then looks up an
// array.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <tune/candidates.hpp>
#include <unweight/plan.hpp>
#include <vector>

namespace unweight::tune {

/// Who is asked, in this order; cost model and fallback come after them.
struct LookupSources {
  std::span<const TokenChoice> overrides;
  const Plan* plan = nullptr;
  std::span<const Plan> builtin;
};

/// A version of cuBLASLt that has every plan's algorithms: for a caller who multiplies with decoded weights by other
/// means.
inline constexpr std::uint64_t kAnyCublaslt = ~std::uint64_t{0};

/// What is possible for one weight on one device.
struct LookupRules {
  WeightClass weight;
  DeviceIdentity device;
  std::uint64_t cublaslt = 0;     ///< its version, or kAnyCublaslt; 0: it cannot be used for this weight
  bool scratch = true;            ///< whether there is memory to decode to
  bool dependent_launch = false;  ///< which of a cell's lists counts
  CanImplement can_implement;
  std::function<Result<MatmulConfig>(std::uint32_t tokens)> choose_config;
};

struct ChoiceTable {
  std::array<ResolvedChoice, kTokenBuckets> buckets;
  /// For fused work where a call's operands do not suit cuBLASLt.
  std::array<MatmulConfig, kTokenBuckets> fused;
  std::vector<std::string> notes;  ///< what could not be used, and why

  /// @param tokens  1 to kMaxMatmulTokens
  [[nodiscard]] const ResolvedChoice& at(std::uint32_t tokens) const noexcept { return buckets[token_bucket(tokens)]; }
};

/// How far a cell may be from a bucket that has none of its own, in buckets, where no cell lies beyond the bucket.
inline constexpr std::uint32_t kReach = 2;

/// The cells that may stand for a bucket, the nearest first, the larger one of two as near before the other: what is
/// more than kReach away is left out unless the bucket lies between cells.
[[nodiscard]] std::vector<const PlanCell*> near_cells(const std::vector<PlanCell>& cells, std::uint32_t bucket);

/// The list of a PlanCell, const or not, that counts; the other one where it is empty.
template <class Cell>
[[nodiscard]] auto& list_of(Cell& cell, bool dependent_launch) {
  auto& wanted = dependent_launch ? cell.dependent : cell.isolated;
  auto& other = dependent_launch ? cell.isolated : cell.dependent;
  return wanted.empty() ? other : wanted;
}

/// The choice of every bucket: from the first of near_cells() that has one that is legal for all of the bucket.
/// Errors: kInvalidArgument where an override or an entry of the caller's plan for this weight is not legal, with the
/// reason; what can_implement and choose_config report. A plan that does not suit the device is not an error but a
/// note.
[[nodiscard]] Result<ChoiceTable> resolve(const LookupSources& sources, const LookupRules& rules);

}  // namespace unweight::tune
