// SPDX-License-Identifier: Apache-2.0
//
// A decoded tile in shared memory, between the lanes that decode it (32 values of 2 rows each) and the lanes that write
// it out (whole rows): 16 rows of 64 bf16 values, 2 KiB, row-major but for the order of a row's eight 16-byte chunks:
//
//   chunk c of row r lies at chunk c ^ (r & 7)
//
// A warp's store of one pair per lane (8 rows, one chunk) then touches all 32 banks once, and so does every group of 8
// lanes that load the 8 chunks of one row.
#pragma once

#include <cstdint>
#include <cuda/device/tile_decode.cuh>
#include <format/layout.hpp>

namespace unweight::device {

inline constexpr std::uint32_t kChunkValues = 8;  ///< 16 bytes, the widest load and store
inline constexpr std::uint32_t kRowChunks = format::kTileCols / kChunkValues;

/// Index, in values, of a staged chunk.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t staged_chunk(std::uint32_t row, std::uint32_t chunk) {
  return row * format::kTileCols + ((chunk ^ (row & 7)) * kChunkValues);
}

/// Index of a staged value.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t staged_value(std::uint32_t row, std::uint32_t col) {
  return staged_chunk(row, col / kChunkValues) + col % kChunkValues;
}

/// Index of a lane's staged pair (LaneValues::pairs).
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t staged_pair(std::uint32_t lane, std::uint32_t pair) {
  return staged_value(group_row(lane, pair / 2), pair_col(lane, pair));
}

/// Index of the staged value that an exception entry names.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t staged_entry(std::uint16_t entry) {
  const std::uint32_t position = format::entry_position(entry);
  return staged_value(format::position_row(position), format::position_col(position));
}

}  // namespace unweight::device
