// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <support/tensors.hpp>
#include <synthetic.hpp>
#include <thread>

namespace unweight::bench {

std::vector<std::uint16_t> synthetic_weights(const MatrixShape& shape) {
  constexpr std::uint64_t kBlockRows = 64;  // a block has its own seed, so that threads need no common sequence
  std::vector<std::uint16_t> values(shape.rows * shape.cols);
  std::atomic<std::uint64_t> next{0};
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < std::max(1U, std::thread::hardware_concurrency()); ++t) {
    threads.emplace_back([&] {
      for (std::uint64_t row = kBlockRows * next++; row < shape.rows; row = kBlockRows * next++) {
        const MatrixShape block{1, std::min(kBlockRows, shape.rows - row), shape.cols};
        const auto part = test::make_tensor(block, test::Filling::kTrained, row);
        std::copy(part.begin(), part.end(), values.begin() + static_cast<std::ptrdiff_t>(row * shape.cols));
      }
    });
  }
  threads.clear();
  return values;
}

std::vector<std::uint16_t> normal_values(std::size_t count) {
  test::Random random(count);
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& value : values) value = test::to_bf16(static_cast<float>(random.normal()));
  return values;
}

}  // namespace unweight::bench
