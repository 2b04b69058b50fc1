// SPDX-License-Identifier: Apache-2.0
//
// The library's own plans. tables/*.inc are made by `unweight plan table` from measured plans, never by hand.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unweight/plan.hpp>

namespace unweight::tune {

/// None for a GPU that nobody has measured with the present kernels. Of several for one GPU the first counts where it
/// has a cell: that of fewer weights, for which there was more time.
[[nodiscard]] std::span<const Plan> builtin_plans();

/// What the lines of the tables call.
class TableBuilder {
 public:
  void plan(std::string_view gpu, std::uint32_t multiprocessors, std::uint64_t cublaslt, std::string_view library,
            std::string_view kernels);
  void weight(std::uint64_t rows, std::uint64_t cols, BlobLayout layout, ExceptionClass exceptions);
  void cell(std::uint32_t tokens, const Choice& isolated, const Choice& dependent);

  static Choice fused(const MatmulConfig& config) { return {Pipeline::kFused, config, {}}; }
  static Choice decoded(const CublasAlgorithm& algorithm) { return {Pipeline::kDecoded, {}, algorithm}; }
  static Choice raw(const CublasAlgorithm& algorithm) { return {Pipeline::kRaw, {}, algorithm}; }

  [[nodiscard]] std::vector<Plan> finish() && { return std::move(plans_); }

 private:
  std::vector<Plan> plans_;
};

}  // namespace unweight::tune
