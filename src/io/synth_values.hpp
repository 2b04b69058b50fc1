// SPDX-License-Identifier: Apache-2.0
//
// The synthetic weights: a counter-based generator, so that any part of any tensor can be made alone, by any thread,
// and is the same on every machine.
//
//   matrix  row r: sigma = 0.02 * 2^(0.5 n_r), n_r ~ N(0, 1); values ~ N(0, sigma), rounded to nearest even bfloat16
//   norm    1 + 0.1 N(0, 1)
//   bias    0.02 N(0, 1)
//
// N(0, 1) is the inverse of the normal distribution function at 32 bits of a mixed counter, piecewise linear in 1024
// segments. Only correctly rounded operations (+ - * / of IEEE 754) and integers are used, none of libm's functions;
// the file is compiled without contraction to fused multiply-add.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace unweight::io {

/// Which line of the recipe a tensor follows.
enum class SynthRecipe : std::uint8_t { kMatrix, kNorm, kBias };

/// Where a tensor's random numbers begin. Different for every seed and name.
[[nodiscard]] std::uint64_t synth_tensor_key(std::uint64_t seed, std::string_view tensor_name) noexcept;

/// Standard deviation of row `row` of a matrix.
[[nodiscard]] float synth_row_sigma(std::uint64_t tensor_key, std::uint64_t row) noexcept;

/// Writes values number begin, begin + 1, ... of the tensor to `out`. `cols` is the length of a matrix's row; norms and
/// biases ignore it.
void synth_values(std::uint64_t tensor_key, SynthRecipe recipe, std::uint64_t cols, std::uint64_t begin,
                  std::span<std::uint16_t> out) noexcept;

}  // namespace unweight::io
