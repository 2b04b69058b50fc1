// SPDX-License-Identifier: Apache-2.0
//
// The decode kernel on the CPU (tests/emulation): the real kernel source, the launcher's own parameters.
#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
#include "support/tensors.hpp"
#include <array>
#include <cuda/kernels/sm90_decode.cuh>
#include <cuda/launch/decode_params.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

/// Decodes between guard bands, `offset` values from a 16-byte boundary, and wants `expected` and nothing else written.
void expect_decodes(const HostBlob& blob, std::span<const std::uint16_t> expected, std::uint64_t row_stride,
                    std::uint64_t offset, std::uint64_t seed, const std::string& what) {
  constexpr std::uint16_t kPoison = 0xa5a5;
  constexpr std::size_t kGuard = 64;
  struct alignas(16) Eight {
    std::array<std::uint16_t, 8> values;
  };
  const MatrixShape& shape = blob.placed.shape;
  const std::uint64_t rows = shape.batch * shape.rows;
  std::vector<Eight> memory((kGuard + offset + rows * row_stride + kGuard) / 8 + 1);
  std::uint16_t* const all = &memory[0].values[0];
  std::vector<std::uint16_t> wanted(memory.size() * 8, kPoison);
  std::copy(wanted.begin(), wanted.end(), all);
  for (std::uint64_t row = 0; row < rows; ++row) {
    std::copy_n(expected.begin() + static_cast<std::ptrdiff_t>(row * shape.cols), shape.cols,
                wanted.begin() + static_cast<std::ptrdiff_t>(kGuard + offset + row * row_stride));
  }
  using Traits = sm90::DecodeTraits<sm90::DecodeConfig>;
  const auto params = launch::decode_params(blob.placed, all + kGuard + offset, row_stride);
  const auto blocks = static_cast<std::uint32_t>(format::ceil_div(params.tile_count, Traits::kTilesPerBlock));
  emulation::launch({blocks, Traits::kThreads}, 0, seed, [&] { sm90::decode_kernel<sm90::DecodeConfig>(params); });
  EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), all)) << what << ", seed " << seed;
}

TEST(DecodeEmulation, EveryFillingShapeAndPlace) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 47, 504}, MatrixShape{3, 30, 600}, MatrixShape{2, 16, 711}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto blob = HostBlob::encoded(values, shape);
      if (blob.placed.layout != BlobLayout::kTiled) continue;
      const std::uint64_t padded = (shape.cols + 7) / 8 * 8;
      for (const auto& [stride, offset] :
           {std::array<std::uint64_t, 2>{shape.cols, 0}, {padded, 0}, {padded + 8, 1}, {shape.cols + 1, 0}}) {
        expect_decodes(blob, values, stride, offset, ++seed,
                       name_of(filling) + ", stride " + std::to_string(stride) + ", offset " + std::to_string(offset));
      }
    }
  }
}

/// Lists of every length up to exponent planes; all 65,536 values.
TEST(DecodeEmulation, EveryListAndValue) {
  const ListsAndValues tensor;
  const auto blob = HostBlob::encoded(tensor.values, tensor.shape);
  ASSERT_EQ(blob.placed.layout, BlobLayout::kTiled);
  expect_decodes(blob, tensor.values, tensor.shape.cols, 0, 1, "lists and values");
}

}  // namespace
}  // namespace unweight::test
