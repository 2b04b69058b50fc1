// SPDX-License-Identifier: Apache-2.0
#include <format/layout.hpp>
#include <pipelines/choices.hpp>
#include <pipelines/dense.hpp>
#include <span>
#include <tune/tables.hpp>

namespace unweight::pipelines {

WeightClass class_of(const DeviceBlob& blob) {
  const MatrixShape& shape = blob.shape();
  const auto tiles = format::tiled_geometry(shape.batch, shape.rows, shape.cols, 1).tiles;
  return {shape.rows, shape.cols, blob.layout(), exception_class(blob.exception_units(), tiles)};
}

Result<tune::ChoiceTable> resolve_choices(const ChoiceProblem& problem, const LinearOptions& options) {
  const MatrixShape shape{problem.batch, problem.weight.rows, problem.weight.cols};
  const auto matmul_problem = [&](std::uint32_t tokens) {
    return MatmulProblem{shape, problem.weight.layout, problem.device.multiprocessors, tokens};
  };
  tune::LookupRules rules;
  rules.weight = problem.weight;
  rules.device = problem.device;
  rules.cublaslt = options.cublas && suits_dense(shape) ? problem.cublaslt : 0;
  rules.scratch = options.scratch && problem.batch == 1;
  rules.dependent_launch = options.dependent_launch;
  rules.can_implement = [&](std::uint32_t tokens, const MatmulConfig& config) {
    return can_implement(matmul_problem(tokens), config);
  };
  rules.choose_config = [&](std::uint32_t tokens) { return choose_matmul_config(matmul_problem(tokens)); };
  const std::span<const Plan> builtin = options.builtin_tables ? tune::builtin_plans() : std::span<const Plan>();
  return tune::resolve({options.overrides, options.plan, builtin}, rules);
}

}  // namespace unweight::pipelines
