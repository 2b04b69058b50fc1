// SPDX-License-Identifier: Apache-2.0
//
// The forms in which plans are shown.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <unweight/plan.hpp>
#include <unweight/tune.hpp>
#include <vector>

namespace unweight::cli {

/// What was said while a plan was measured.
struct Measuring {
  double seconds = 0;
  std::uint64_t timed = 0, refused = 0;
  std::vector<std::string> refusals, warnings;
};

struct PlanView {
  Plan plan;
  std::optional<MemoryReport> memory;  ///< none where the plan has no matrices
  Measuring measuring;
  std::filesystem::path file, report;
};

/// Tables.
[[nodiscard]] std::string plan_summary(const PlanView& view);
/// One line of JSON.
[[nodiscard]] std::string plan_json(const PlanView& view);
/// A self-contained page, well-formed as HTML and as XML: a heat map of speed-ups.
[[nodiscard]] std::string plan_page(const PlanView& view);

/// How many times as fast as cuBLAS a measurement is; 0 where that is unknown.
[[nodiscard]] inline double speed_up(const PlanCell& cell, const Measurement& measured) {
  return measured.us > 0 ? cell.cublas_us / measured.us : 0;
}

/// The numbers of tokens of all cells, in increasing order.
[[nodiscard]] std::vector<std::uint32_t> all_tokens(const Plan& plan);

/// The list that the plan's request names.
[[nodiscard]] const std::vector<Measurement>& shown_list(const Plan& plan, const PlanCell& cell);

}  // namespace unweight::cli
