// SPDX-License-Identifier: Apache-2.0
//
// Slices: tiles are copied, tables rebuilt. Only the content checksum needs the values, decoded a strip at a time.
#include <codec/decode.hpp>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/out_of_memory.hpp>
#include <codec/parallel.hpp>
#include <codec/strips.hpp>
#include <fmt/format.h>
#include <new>

namespace unweight {
namespace {

using namespace format;

Result<void> check_extent(const char* what, std::uint64_t begin, std::uint64_t end, std::uint64_t extent,
                          std::uint64_t granularity) {
  if (begin >= end || end > extent) {
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("slice of {} {} to {} is empty or out of range: the tensor has {}", what, begin, end, extent));
  }
  if (begin % granularity != 0 || (end % granularity != 0 && end != extent)) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("slice of {} {} to {}: both must be multiples of {}{}", what, begin, end, granularity,
                            end == extent ? "" : fmt::format(" (or end at {})", extent)));
  }
  return {};
}

MatrixShape slice_shape(const SliceRange& r) {
  return {r.batch_end - r.batch_begin, r.row_end - r.row_begin, r.col_end - r.col_begin};
}

std::vector<std::byte> slice_raw(const BlobView& blob, const SliceRange& r) {
  const MatrixShape shape = slice_shape(r);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(shape.batch * shape.rows * shape.cols));
  const Header& h = blob.header();
  std::byte* to = reinterpret_cast<std::byte*>(values.data());
  for (std::uint64_t b = r.batch_begin; b < r.batch_end; ++b) {
    for (std::uint64_t n = r.row_begin; n < r.row_end; ++n) {
      const std::uint64_t from = ((b * h.rows + n) * h.cols + r.col_begin) * sizeof(std::uint16_t);
      std::memcpy(to, blob.payload().data() + from, static_cast<std::size_t>(shape.cols) * sizeof(std::uint16_t));
      to += shape.cols * sizeof(std::uint16_t);
    }
  }
  std::vector<std::byte> out(static_cast<std::size_t>(raw_blob_bytes(values.size())));
  codec::write_raw(values, shape, out, 1);
  return out;
}

/// Calls `body(source tile, number of tiles)` for every run of consecutive source tiles, in the slice's order.
template <class Body>
void for_tile_runs(const TiledGeometry& g, const SliceRange& r, const Body& body) {
  const std::uint64_t strip_begin = r.row_begin / kTileRows, strip_end = ceil_div(r.row_end, kTileRows);
  const std::uint64_t k_begin = r.col_begin / kTileCols, k_end = ceil_div(r.col_end, kTileCols);
  for (std::uint64_t b = r.batch_begin; b < r.batch_end; ++b) {
    for (std::uint64_t s = strip_begin; s < strip_end; ++s) {
      body((b * g.strips + s) * g.tiles_per_strip + k_begin, k_end - k_begin);
    }
  }
}

Result<std::vector<std::byte>> slice_tiled(const BlobView& blob, const SliceRange& r) {
  const MatrixShape shape = slice_shape(r);
  const TiledGeometry& from = blob.geometry();
  Header h = blob.header();
  const TiledGeometry g = tiled_geometry(shape.batch, shape.rows, shape.cols, h.palette_count);
  h.exception_units = 0;
  for_tile_runs(from, r, [&](std::uint64_t tile, std::uint64_t count) {
    h.exception_units += blob.exception_begin(tile + count) - blob.exception_begin(tile);
  });
  std::vector<std::byte> out(static_cast<std::size_t>(g.blob_bytes(h.exception_units)));

  std::memcpy(out.data() + g.palettes_offset, blob.palette(0), std::size_t{h.palette_count} * kPaletteSize);
  const codec::Strips strips(shape);
  codec::ExceptionTableWriter tables(g, out);
  std::byte* row_palettes = out.data() + g.row_palettes_offset;
  std::byte* tiles = out.data() + g.tiles_offset;
  std::byte* exceptions = out.data() + g.exceptions_offset;
  for_tile_runs(from, r, [&](std::uint64_t tile, std::uint64_t count) {
    const std::uint64_t source_strip = tile / from.tiles_per_strip;
    for (std::uint32_t row = 0; row < kTileRows; ++row) {
      *row_palettes++ = std::byte{blob.row_palette(source_strip * kTileRows + row)};
    }
    std::memcpy(tiles, blob.tile(tile), static_cast<std::size_t>(count * kTileBytes));
    tiles += count * kTileBytes;
    const std::uint64_t begin = blob.exception_begin(tile), end = blob.exception_begin(tile + count);
    const auto bytes = static_cast<std::size_t>((end - begin) * sizeof(std::uint16_t));
    if (bytes != 0) std::memcpy(exceptions, blob.exception_unit(begin), bytes);
    exceptions += bytes;
    for (std::uint64_t t = tile; t < tile + count; ++t) tables.add(blob.exception_units(t));
  });
  tables.finish();

  codec::finish_header(h, shape, g, out.size(), out);
  const auto view = BlobView::validate(h, out);
  if (!view) return tl::unexpected(view.error());
  codec::seal_blob(out, codec::content_checksum(codec::tile_kernels(), *view), 1);
  return out;
}

}  // namespace

Result<std::vector<std::byte>> slice(std::span<const std::byte> bytes, const SliceRange& range) try {
  const auto blob = codec::open_blob(bytes);
  if (!blob) return tl::unexpected(blob.error());
  const Header& h = blob->header();
  const bool tiled = blob->layout() == Layout::kTiled;
  for (const auto& ok : {check_extent("matrices", range.batch_begin, range.batch_end, h.batch, 1),
                         check_extent("rows", range.row_begin, range.row_end, h.rows, tiled ? kTileRows : 1),
                         check_extent("columns", range.col_begin, range.col_end, h.cols, tiled ? kTileCols : 1)}) {
    if (!ok) return tl::unexpected(ok.error());
  }
  if (auto ok = codec::check_payload(*blob, 1); !ok) return tl::unexpected(ok.error());
  return tiled ? slice_tiled(*blob, range) : slice_raw(*blob, range);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("slicing a blob of {} bytes", bytes.size());
}

static_assert(kSliceRows == format::kTileRows && kSliceCols == format::kTileCols);

}  // namespace unweight
