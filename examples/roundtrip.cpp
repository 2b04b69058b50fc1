// SPDX-License-Identifier: Apache-2.0
//
// Compresses one matrix in memory and restores it.
#include <cstdint>
#include <cstdio>
#include <unweight/blob.hpp>
#include <vector>

int main() {
  // 256 x 512 bfloat16 values: bits of small positive and negative numbers.
  const unweight::MatrixShape shape{.batch = 1, .rows = 256, .cols = 512};
  std::vector<std::uint16_t> weights(shape.rows * shape.cols);
  std::uint32_t state = 1;
  for (std::uint16_t& weight : weights) {
    state = state * 1664525u + 1013904223u;
    const std::uint32_t exponent = 120u + (state >> 30);  // four exponents
    weight = static_cast<std::uint16_t>((state >> 16 & 0x8000u) | exponent << 7 | (state >> 8 & 0x7fu));
  }

  const auto blob = unweight::encode(weights, shape);
  if (!blob) {
    std::fprintf(stderr, "encode: %s\n", blob.error().message.c_str());
    return 1;
  }
  const auto info = unweight::inspect(*blob);
  if (!info) {
    std::fprintf(stderr, "inspect: %s\n", info.error().message.c_str());
    return 1;
  }
  std::printf("%zu bytes became %zu, %.2f bits a weight\n", 2 * weights.size(), blob->size(), info->bits_per_weight);

  std::vector<std::uint16_t> restored(weights.size());
  if (const auto decoded = unweight::decode(*blob, restored); !decoded) {
    std::fprintf(stderr, "decode: %s\n", decoded.error().message.c_str());
    return 1;
  }
  std::printf("%s\n", restored == weights ? "identical" : "different");
  return restored == weights ? 0 : 1;
}
