// SPDX-License-Identifier: Apache-2.0
//
// The choices for a weight, from a description of it and of the device alone: nothing is asked of a GPU or of cuBLASLt.
#pragma once

#include <cstdint>
#include <tune/resolve.hpp>
#include <unweight/cuda.hpp>
#include <unweight/pipelines.hpp>
#include <unweight/plan.hpp>
#include <unweight/result.hpp>

namespace unweight::pipelines {

/// What choices depend on, beside the caller's options.
struct ChoiceProblem {
  WeightClass weight;
  std::uint64_t batch = 1;
  DeviceIdentity device;
  std::uint64_t cublaslt = 0;  ///< its version, or tune::kAnyCublaslt; 0: it cannot be used
};

[[nodiscard]] WeightClass class_of(const DeviceBlob& blob);

/// A choice for every bucket of a matrix that is not empty, as Linear follows them. Errors: as Linear::create().
[[nodiscard]] Result<tune::ChoiceTable> resolve_choices(const ChoiceProblem& problem, const LinearOptions& options);

}  // namespace unweight::pipelines
