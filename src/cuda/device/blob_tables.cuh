// SPDX-License-Identifier: Apache-2.0
//
// The sections of a runtime blob between tiles and exceptions (docs/FORMAT.md, section 2), and its padding, from what
// the workspace holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/transcode_state.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

/// Bytes of the blob that are neither header, tile, exception nor raw value, two at a time.
struct TableWriter {
  const TranscodeParams& params;
  const TranscodeState& state;
  format::TiledGeometry at;

  [[nodiscard]] __device__ std::uint32_t row_number(std::uint64_t row) const {
    if (row >= at.padded_rows) return 0;
    return palette_number(state, params.workspace.row_palettes[row]);
  }
  [[nodiscard]] __device__ std::uint32_t palette_byte(std::uint64_t i) const {
    if (i >= std::uint64_t{state.palette_count} * format::kPaletteSize) return 0;
    return format::rotate_exponent(palette_exponent(state.palettes[i / format::kPaletteSize],
                                                    static_cast<std::uint32_t>(i % format::kPaletteSize)));
  }

  /// The two bytes at `offset`, which is even and between the tiles and the exceptions.
  [[nodiscard]] __device__ std::uint32_t unit(std::uint64_t offset) const {
    if (offset < at.tile_starts_offset) {
      const std::uint64_t i = (offset - at.segment_starts_offset) / sizeof(std::uint32_t);
      const std::uint32_t start = i < at.segments ? params.workspace.segment_starts[i] : 0;
      return offset % sizeof(std::uint32_t) == 0 ? start & 0xffff : start >> 16;
    }
    if (offset < at.row_palettes_offset) {
      const std::uint64_t i = (offset - at.tile_starts_offset) / sizeof(std::uint16_t);
      return i <= at.tiles ? params.workspace.tile_starts[i] : 0;
    }
    if (offset < at.palettes_offset) {
      const std::uint64_t row = offset - at.row_palettes_offset;
      return row_number(row) | row_number(row + 1) << 8;
    }
    const std::uint64_t i = offset - at.palettes_offset;
    return palette_byte(i) | palette_byte(i + 1) << 8;
  }
};

/// Writes all of them, and what is padding, by threads of a number each.
__device__ inline void write_tables(const TranscodeParams& params, std::uint64_t thread, std::uint64_t threads) {
  const TranscodeState& state = *params.workspace.state;
  const TableWriter writer{params, state,
                           format::tiled_geometry(params.batch, params.rows, params.cols, state.palette_count)};
  std::uint64_t end = format::kHeaderBytes + params.batch * params.rows * params.cols * sizeof(std::uint16_t);
  if (state.is_tiled != 0) {
    const std::uint64_t begin = writer.at.segment_starts_offset;
    for (std::uint64_t offset = begin + 2 * thread; offset < writer.at.exceptions_offset; offset += 2 * threads) {
      *reinterpret_cast<std::uint16_t*>(params.out + offset) = static_cast<std::uint16_t>(writer.unit(offset));
    }
    end = writer.at.exceptions_offset + state.exception_units * sizeof(std::uint16_t);
  }
  for (std::uint64_t offset = end + 2 * thread; offset < state.blob_bytes; offset += 2 * threads) {
    *reinterpret_cast<std::uint16_t*>(params.out + offset) = 0;
  }
}

}  // namespace unweight::device
