// SPDX-License-Identifier: Apache-2.0
//
// The gather kernel on the CPU (tests/emulation): the real kernel source, the launcher's own parameters.
#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
#include "support/tensors.hpp"
#include <cuda/kernels/sm90_gather_rows.cuh>
#include <cuda/launch/gather_rows_params.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

constexpr std::uint16_t kPoison = 0xa5a5, kOutside = 0x7fff;

/// Some rows twice, out of order; and numbers that no tensor has, on both sides.
std::vector<std::int64_t> some_rows(std::uint64_t rows, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::int64_t> numbers = {
      -1, static_cast<std::int64_t>(rows), 0, static_cast<std::int64_t>(rows) - 1, INT64_MIN, INT64_MAX};
  for (int i = 0; i < 12; ++i) numbers.push_back(static_cast<std::int64_t>(random.below(rows)));
  return numbers;
}

/// Gathers between guard bands, `offset` values from a 4-byte boundary, and wants those rows and nothing else written.
void expect_gathers(const HostBlob& blob, std::span<const std::uint16_t> tensor, std::span<const std::int64_t> numbers,
                    std::uint64_t row_stride, std::uint64_t offset, std::uint64_t seed, const std::string& what) {
  constexpr std::size_t kGuard = 64;
  const MatrixShape& shape = blob.placed.shape;
  const std::uint64_t rows = shape.batch * shape.rows;
  std::vector<std::uint32_t> memory((kGuard + offset + numbers.size() * row_stride + kGuard) / 2 + 1);
  auto* const all = reinterpret_cast<std::uint16_t*>(memory.data());
  std::vector<std::uint16_t> wanted(memory.size() * 2, kPoison);
  std::copy(wanted.begin(), wanted.end(), all);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto at = wanted.begin() + static_cast<std::ptrdiff_t>(kGuard + offset + i * row_stride);
    if (static_cast<std::uint64_t>(numbers[i]) >= rows) {
      std::fill_n(at, shape.cols, kOutside);
    } else {
      std::copy_n(tensor.begin() + numbers[i] * static_cast<std::int64_t>(shape.cols), shape.cols, at);
    }
  }
  using Config = sm90::GatherRowsConfig;
  const auto params = launch::gather_rows_params(blob.placed, numbers, all + kGuard + offset, row_stride);
  const auto blocks =
      static_cast<std::uint32_t>(format::ceil_div(params.row_count * params.row_tiles, std::uint64_t{Config::kWarps}));
  emulation::launch({blocks, Config::kThreads}, 0, seed, [&] { sm90::gather_rows_kernel<Config>(params); });
  EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), all)) << what << ", seed " << seed;
}

TEST(GatherRowsEmulation, EveryFillingShapeAndPlace) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 47, 504}, MatrixShape{3, 30, 600}, MatrixShape{2, 16, 711}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto numbers = some_rows(shape.batch * shape.rows, ++seed);
      for (const auto& blob : {HostBlob::encoded(values, shape), HostBlob(raw_blob(values, shape))}) {
        expect_gathers(blob, values, numbers, shape.cols, 0, seed, name_of(filling) + ", dense");
        expect_gathers(blob, values, numbers, shape.cols + 3, 1, seed, name_of(filling) + ", odd stride, misaligned");
      }
    }
  }
}

/// Lists of every length up to exponent planes; all 65,536 values.
TEST(GatherRowsEmulation, EveryListAndValue) {
  const ListsAndValues tensor;
  const auto blob = HostBlob::encoded(tensor.values, tensor.shape);
  ASSERT_EQ(blob.placed.layout, BlobLayout::kTiled);
  std::vector<std::int64_t> numbers(tensor.shape.rows);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(numbers.size() - 1 - i);
  expect_gathers(blob, tensor.values, numbers, tensor.shape.cols, 0, 1, "lists and values");
}

}  // namespace
}  // namespace unweight::test
