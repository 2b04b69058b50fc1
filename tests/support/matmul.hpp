// SPDX-License-Identifier: Apache-2.0
//
// What tests of the multiplication share, on a device and in emulation.
#pragma once

#include "support/tensors.hpp"
#include <cmath>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <gtest/gtest.h>
#include <span>
#include <string>
#include <tuple>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>
#include <vector>

namespace unweight::test {

/// What the bits of Y depend on.
inline auto kind_of(const MatmulConfig& c) { return std::tuple(c.strips, c.split, c.warpgroup); }

inline std::string describe(const MatmulConfig& c) {
  return "strips " + std::to_string(c.strips) + ", stages " + std::to_string(c.stages) + (c.split ? ", split" : "") +
         (c.warpgroup ? ", warpgroup" : "") + (c.dependent_launch ? ", dependent" : "");
}

/// X [tokens, cols], N(0, 1), row t at values[t * stride]; NaN in the gaps between rows.
inline void fill_activations(std::uint16_t* values, std::uint64_t tokens, std::uint64_t cols, std::uint64_t stride,
                             std::uint64_t seed) {
  Random random(seed);
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t k = 0; k < stride; ++k) {
      values[t * stride + k] = k < cols ? to_bf16(static_cast<float>(random.normal())) : std::uint16_t{0x7fc0};
    }
  }
}

inline double value_of(std::uint16_t bf16) { return static_cast<double>(device::float_of_bf16(bf16)); }

/// Every y within rounding of the float64 sum: half a unit of bf16 and what float sums of this length may lose.
/// @param y     [tokens, rows], dense
/// @param x     [tokens, cols], rows `x_stride` values apart
/// @param w     [rows, cols], dense
/// @param bias  [rows] or null
inline testing::AssertionResult near_float64(std::span<const std::uint16_t> y, const std::uint16_t* x,
                                             std::uint64_t x_stride, std::span<const std::uint16_t> w,
                                             const MatrixShape& shape, std::uint64_t tokens,
                                             const std::uint16_t* bias = nullptr) {
  for (std::uint64_t t = 0; t < tokens; ++t) {
    for (std::uint64_t n = 0; n < shape.rows; ++n) {
      double sum = bias == nullptr ? 0 : value_of(bias[n]), size = std::fabs(sum);
      for (std::uint64_t k = 0; k < shape.cols; ++k) {
        const double product = value_of(x[t * x_stride + k]) * value_of(w[n * shape.cols + k]);
        sum += product;
        size += std::fabs(product);
      }
      const double found = value_of(y[t * shape.rows + n]);
      if (!(std::fabs(found - sum) <= 0x1p-8 * std::fabs(sum) + 0x1p-18 * size)) {
        return testing::AssertionFailure() << "token " << t << ", row " << n << " is " << found << ", not " << sum;
      }
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace unweight::test
