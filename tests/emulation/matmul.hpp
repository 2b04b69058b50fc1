// SPDX-License-Identifier: Apache-2.0
//
// What tests of the multiplication kernels on the CPU share.
#pragma once

#include "emulation/device_language.hpp"
#include "emulation/host_blob.hpp"
#include "support/matmul.hpp"
#include "support/tensors.hpp"
#include <algorithm>
#include <array>
#include <cstdint>
#include <cuda.h>
#include <cuda/launch/matmul_operands.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {

/// Rows of activations with gaps of NaN, at an offset from a 16-byte boundary.
struct HostActivations {
  HostActivations(std::uint64_t tokens, std::uint64_t cols, std::uint64_t stride_in, std::uint64_t offset_in,
                  std::uint64_t seed)
      : stride(stride_in), offset(offset_in), memory((offset + tokens * stride) / 8 + 1) {
    std::fill_n(&memory[0].values[0], memory.size() * 8, std::uint16_t{0x7fc0});
    fill_activations(data(), tokens, cols, stride, seed);
  }
  [[nodiscard]] std::uint16_t* data() { return &memory[0].values[0] + offset; }
  [[nodiscard]] const std::uint16_t* data() const { return &memory[0].values[0] + offset; }

  struct alignas(16) Eight {
    std::array<std::uint16_t, 8> values;
  };
  std::uint64_t stride, offset;
  std::vector<Eight> memory;
};

inline CUtensorMap host_tensor_map(const launch::MatrixInMemory& m, std::uint32_t box_rows, std::uint32_t box_tiles) {
  return {.values = m.values,
          .rows = m.rows,
          .cols = m.cols,
          .stride = m.stride,
          .box_rows = box_rows,
          .box_tiles = box_tiles};
}

/// Of a blob's tiles or, of a raw one, of its values.
inline CUtensorMap host_weight_map(const launch::PlacedBlob& weight, std::uint64_t matrix, std::uint32_t strips,
                                   std::uint32_t box_tiles) {
  CUtensorMap map = host_tensor_map(launch::raw_matrix(weight, matrix), strips * format::kTileRows, box_tiles);
  if (weight.layout == BlobLayout::kRaw) return map;
  map.tiles = launch::matrix_tiles(weight, matrix);
  map.tiles_per_strip = weight.geometry().tiles_per_strip;
  map.strips = weight.geometry().strips;
  map.box_strips = strips;
  return map;
}

struct MatmulTestCase {
  std::uint32_t tokens = 1;
  MatmulConfig config;
  std::uint64_t y_gap = 0;
  std::uint64_t matrix = 0;
  const std::uint16_t* bias = nullptr;
  std::uint32_t multiprocessors = 3;
  std::uint64_t seed = 1;
  std::uint64_t y_offset = 0;  ///< values from a 16-byte boundary
};

/// Y, after a check that nothing around it was written and that the workspace's flags are zero again.
/// @param run  enqueues the kernel for a blob, arguments and the case
template <class Run>
std::vector<std::uint16_t> multiply_on_host(const HostBlob& blob, const HostActivations& x, const MatmulTestCase& c,
                                            Run run) {
  constexpr std::uint16_t kPoison = 0xa5a5;
  constexpr std::uint64_t kGuard = 64;
  const launch::PlacedBlob& weight = blob.placed;
  const std::uint64_t rows = weight.shape.rows, stride = rows + c.y_gap, begin = kGuard + c.y_offset;
  std::vector<HostActivations::Eight> memory((begin + c.tokens * stride + kGuard) / 8 + 1);
  std::uint16_t* const values = memory.front().values.data();
  std::fill_n(values, memory.size() * 8, kPoison);
  constexpr std::uint64_t kItemBytes = 256 * 128 * sizeof(float);
  const std::uint64_t flag_bytes = launch::partial_flag_bytes(c.multiprocessors);
  std::vector<std::uint32_t> workspace((flag_bytes + c.multiprocessors * kItemBytes) / 4, 0x7fc00000);  // NaN
  std::fill_n(workspace.begin(), flag_bytes / 4, 0);
  const MatmulArguments arguments{.x = x.data(),
                                  .x_stride = x.stride,
                                  .y = values + begin,
                                  .y_stride = stride,
                                  .bias = c.bias,
                                  .tokens = c.tokens,
                                  .matrix = c.matrix,
                                  .workspace = workspace.data()};
  run(weight, arguments, c);
  std::vector<std::uint16_t> y;
  for (std::size_t i = 0; i < memory.size() * 8; ++i) {
    const std::uint64_t at = i - begin;
    if (i >= begin && at < c.tokens * stride && at % stride < rows) {
      y.push_back(values[i]);
    } else {
      EXPECT_EQ(values[i], kPoison) << "beside Y, at " << static_cast<std::int64_t>(at);
    }
  }
  EXPECT_TRUE(std::all_of(workspace.begin(), workspace.begin() + static_cast<std::ptrdiff_t>(flag_bytes / 4),
                          [](std::uint32_t flag) { return flag == 0; }));
  return y;
}

inline std::string describe_case(const MatrixShape& shape, const MatmulTestCase& c) {
  return std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + ", " + std::to_string(c.tokens) +
         " tokens, " + describe(c.config) + ", seed " + std::to_string(c.seed);
}

}  // namespace unweight::test
