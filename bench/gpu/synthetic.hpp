// SPDX-License-Identifier: Apache-2.0
//
// Operands for timing, as bfloat16: the same on every machine, made by all of its CPUs.
#pragma once

#include <cstdint>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::bench {

/// Weights by the synthetic recipe: a row's sigma is 0.02 * 2^(0.5 n), n and the weights normal. Every row is its own.
[[nodiscard]] std::vector<std::uint16_t> synthetic_weights(const MatrixShape& shape);

/// `count` values of N(0, 1).
[[nodiscard]] std::vector<std::uint16_t> normal_values(std::size_t count);

}  // namespace unweight::bench
