// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cuda/device/schedule.cuh>
#include <vector_types.h>

namespace unweight::sm90 {

/// What the multiplications with few and with many tokens need to know. All addresses are device memory.
struct MatmulOperands {
  const uint2* palettes;
  const std::uint8_t* row_palettes;  ///< of the matrix
  const std::uint32_t* segment_starts;
  const std::uint16_t* tile_starts;
  const std::uint16_t* exceptions;
  const std::uint16_t* raw_values;  ///< of the matrix
  const std::uint16_t* x;
  const std::uint16_t* bias;  ///< or null
  std::uint16_t* y;
  float* partial_sums;           ///< of split items: a block's Traits::kItemSums each
  std::uint32_t* partial_flags;  ///< its partial sums are there: of a block, or of its warps
  std::uint64_t x_stride;        ///< in values
  std::uint64_t y_stride;
  std::uint32_t tokens;
  std::uint32_t rows;
  std::uint32_t cols;
  std::uint32_t first_tile;  ///< number of the matrix's first tile in the tables
  std::uint32_t strips;
  std::uint32_t tiles_per_strip;
  Deal deal;
  std::uint32_t palette_count;
  std::uint8_t exception_base;
  bool dependent;           ///< launched so that it may begin before the kernel in front of it has ended
  bool x_by_tensor_copy;    ///< otherwise by ordinary loads
  bool raw_by_tensor_copy;  ///< otherwise the consumers load raw values themselves
  bool y_by_vectors;        ///< Y and its rows are aligned to 16 bytes
};

}  // namespace unweight::sm90
