// SPDX-License-Identifier: Apache-2.0
//
// Descriptors for tensor copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda.h>
#include <format/layout.hpp>
#include <unweight/result.hpp>

namespace unweight::launch {

/// A row-major matrix of 16-bit values in global memory.
struct MatrixInMemory {
  const std::uint16_t* values;
  std::uint64_t rows;
  std::uint64_t cols;
  std::uint64_t stride;  ///< values between rows

  /// Whether tensor copies can address it: 16-byte aligned rows, whole tiles of 64 columns.
  [[nodiscard]] bool suits_tensor_copies() const {
    constexpr std::uint64_t kAlignmentBytes = 16;
    return reinterpret_cast<std::uintptr_t>(values) % kAlignmentBytes == 0 &&
           stride * sizeof *values % kAlignmentBytes == 0 && cols % format::kTileCols == 0 &&
           rows < (std::uint64_t{1} << 31) && cols < (std::uint64_t{1} << 31) &&
           stride * sizeof *values < (std::uint64_t{1} << 40);
  }
};

/// The matrix as a tensor of three dimensions: 64 columns, rows, tiles of 64 columns. A box, up to `box_tiles` x
/// `box_rows` x 64 values, lies in shared memory in that order, rows of 128 bytes, whose eight 16-byte chunks are
/// exchanged by the 128-byte swizzle. Requires suits_tensor_copies(). Errors: kNoDevice (no driver), kCuda.
[[nodiscard]] Result<CUtensorMap> make_tensor_map(const MatrixInMemory& matrix, std::uint32_t box_rows,
                                                  std::uint32_t box_tiles);

/// A blob's matrix as a tensor of three dimensions: the 1408 bytes of a tile, as 176 words; tiles of a strip; strips. A
/// box, up to `box_strips` x `box_tiles` tiles, lies in shared memory in that order, without gaps. Errors: as above.
/// @param tiles  of the matrix, global memory, aligned to 16 bytes
[[nodiscard]] Result<CUtensorMap> make_tile_map(const std::byte* tiles, std::uint64_t tiles_per_strip,
                                                std::uint64_t strips, std::uint32_t box_tiles,
                                                std::uint32_t box_strips);

}  // namespace unweight::launch
