// SPDX-License-Identifier: Apache-2.0
//
// In place of CUDA's header of that name: a tensor map is what it describes.
#pragma once
#include <cstddef>
#include <cstdint>

struct CUtensorMap {
  const std::uint16_t* values;
  std::uint64_t rows, cols, stride;
  std::uint32_t box_rows, box_tiles;  ///< tiles have 64 columns, and the 128-byte swizzle

  // Instead, of a blob's tiles:
  const std::byte* tiles = nullptr;
  std::uint64_t tiles_per_strip = 0, strips = 0;
  std::uint32_t box_strips = 0;  ///< and box_tiles
};
