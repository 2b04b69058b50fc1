// SPDX-License-Identifier: Apache-2.0
//
// What the encoder shares with the slicer, the reference and the tests.
#pragma once

#include <codec/tile_kernels.hpp>
#include <cstddef>
#include <cstdint>
#include <format/blob_view.hpp>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/result.hpp>

namespace unweight::codec {

/// Tiles must save at least 1/32 of the raw blob: less is not worth decoding.
inline constexpr std::uint64_t kMinSavingDivisor = 32;

/// The encoder's decision between tiles and raw.
[[nodiscard]] bool tiles_pay(std::uint64_t tiled_bytes, std::uint64_t raw_bytes);

/// Fills in the fields that every blob has and writes the header, without its checksums, at the start of `out`.
/// `geometry` is all zero for a raw blob.
void finish_header(format::Header& header, const MatrixShape& shape, const format::TiledGeometry& geometry,
                   std::uint64_t blob_bytes, std::span<std::byte> out);

/// Writes the whole raw blob, checksums included; `out` has at least raw_blob_bytes(values.size()). Returns that size.
std::uint64_t write_raw(std::span<const std::uint16_t> values, const MatrixShape& shape, std::span<std::byte> out,
                        unsigned threads);

/// Writes the two tables that say where each tile's exceptions begin.
class ExceptionTableWriter {
 public:
  ExceptionTableWriter(const format::TiledGeometry& geometry, std::span<std::byte> blob)
      : segment_starts_(blob.data() + geometry.segment_starts_offset),
        tile_starts_(blob.data() + geometry.tile_starts_offset) {}

  /// The next tile has `units` exception units.
  void add(std::uint32_t units) {
    write_start();
    unit_ += units;
  }
  /// After the last tile: writes the end of the stream and returns it.
  std::uint64_t finish() {
    write_start();
    return unit_;
  }

 private:
  void write_start() {
    if (tile_ % format::kTilesPerSegment == 0) {
      segment_begin_ = unit_;
      format::store(segment_starts_ + tile_ / format::kTilesPerSegment * sizeof(std::uint32_t),
                    static_cast<std::uint32_t>(unit_));
    }
    format::store(tile_starts_ + tile_ * sizeof(std::uint16_t), static_cast<std::uint16_t>(unit_ - segment_begin_));
    ++tile_;
  }

  std::byte* segment_starts_;
  std::byte* tile_starts_;
  std::uint64_t tile_ = 0;
  std::uint64_t unit_ = 0;
  std::uint64_t segment_begin_ = 0;
};

/// encode_into() with a given implementation of the inner loops. Throws bad_alloc.
[[nodiscard]] Result<std::uint64_t> encode_with(const TileKernels& kernels, std::span<const std::uint16_t> values,
                                                const MatrixShape& shape, std::span<std::byte> out, unsigned threads);

}  // namespace unweight::codec
