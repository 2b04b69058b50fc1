// SPDX-License-Identifier: Apache-2.0
//
// What matmul_bench says: tables for people, JSON for programs, a picture.
#pragma once

#include <ceilings.hpp>
#include <matmul_case.hpp>
#include <optional>
#include <string>
#include <vector>

namespace unweight::bench {

/// What the device can do, of the same run.
struct MatmulCeilings {
  Ceiling read, copy;
  Spread empty_kernel_us;
};

/// The speed-up over cuBLAS that is asked for: at least, and hoped for.
struct Target {
  double floor = 0, aim = 0;
};

/// None for shapes and numbers of tokens that have no target.
[[nodiscard]] std::optional<Target> target_of(const MatrixShape& shape, std::uint32_t tokens, bool dependent_launch);

/// "4/3sw": strips, stages, whether split and by warpgroups.
[[nodiscard]] std::string config_name(const MatmulConfig& config);

/// A line a number of tokens, with a heading.
[[nodiscard]] std::string matmul_table(const MatmulCase& result, const MatmulCeilings& ceilings);

/// How many targets were reached, and which were not.
[[nodiscard]] std::string target_summary(const std::vector<MatmulCase>& results);

/// `origin` as json_origin() gives it, `cublas` a version.
[[nodiscard]] std::string matmul_json(const std::string& origin, const std::string& cublas,
                                      const MatmulCeilings& ceilings, const MatmulBenchOptions& options,
                                      const std::vector<MatmulCase>& results);

/// Speed-up over the number of tokens, a panel a shape.
[[nodiscard]] std::string matmul_svg(const std::string& device, const std::vector<MatmulCase>& results);

/// Ratio of medians: how many times as fast as `a` `b` is.
template <class A, class B>
[[nodiscard]] double speed_up(const Timed<A>& a, const Timed<B>& b) {
  return a.us.median / b.us.median;
}

}  // namespace unweight::bench
