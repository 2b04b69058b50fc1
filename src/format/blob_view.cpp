// SPDX-License-Identifier: Apache-2.0
#include <format/blob_view.hpp>
#include <format/header_checks.hpp>
#include <string>

namespace unweight::format {
namespace {

constexpr HeaderChecks<Header> kChecks{"blob"};

tl::unexpected<Error> corrupt_header(const std::string& message) { return kChecks.corrupt_header(message); }

tl::unexpected<Error> corrupt_payload(const std::string& message) { return kChecks.corrupt_payload(message); }

Result<void> check_offsets(const Header& h, const TiledGeometry& g) {
  const OffsetField fields[] = {
      {"tiles_offset", h.tiles_offset, g.tiles_offset},
      {"segment_starts_offset", h.segment_starts_offset, g.segment_starts_offset},
      {"tile_starts_offset", h.tile_starts_offset, g.tile_starts_offset},
      {"row_palettes_offset", h.row_palettes_offset, g.row_palettes_offset},
      {"palettes_offset", h.palettes_offset, g.palettes_offset},
      {"exceptions_offset", h.exceptions_offset, g.exceptions_offset},
  };
  return kChecks.check_offsets(fields);
}

}  // namespace

Result<Header> read_header(std::span<const std::byte> bytes) { return kChecks.read(bytes, kMagic, kVersionMajor); }

Result<void> BlobTables::read(const Header& h, std::uint64_t& blob_bytes) {
  const auto counted = kChecks.check_common(h, static_cast<std::uint8_t>(Layout::kTiled));
  if (!counted) return tl::unexpected(counted.error());
  const std::uint64_t values = *counted;
  header_ = h;
  if (layout() == Layout::kRaw) {
    if (h.palette_count != 0 || h.exception_units != 0 || h.exception_base != 0) {
      return corrupt_header("a raw blob has no palettes and no exceptions");
    }
    blob_bytes = raw_blob_bytes(values);
    return check_offsets(h, geometry_);
  }
  if (values == 0) return corrupt_header("a tiled blob cannot be empty");
  if (h.palette_count == 0 || h.palette_count > kMaxPalettes) {
    return corrupt_header("palette_count = " + text(h.palette_count) + " must be 1 to " + text(kMaxPalettes));
  }
  if (h.exception_base > kMaxExceptionBase) {
    return corrupt_header("exception_base = " + text(h.exception_base) + " must be at most " + text(kMaxExceptionBase));
  }
  // Padding multiplies the values by at most 16 * 64, so no product below overflows.
  geometry_ = tiled_geometry(h.batch, h.rows, h.cols, h.palette_count);
  if (auto ok = check_offsets(h, geometry_); !ok) return ok;
  if (h.exception_units > geometry_.tiles * kEscapedTileUnits || h.exception_units > UINT32_MAX) {
    return corrupt_header("exception_units = " + text(h.exception_units) + " is too many for " + text(geometry_.tiles) +
                          " tiles");
  }
  blob_bytes = geometry_.blob_bytes(h.exception_units);
  return {};
}

Result<ByteRange> BlobTables::range(const Header& h) {
  BlobTables blob;
  std::uint64_t blob_bytes = 0;
  if (auto ok = blob.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  return blob.range();
}

Result<BlobTables> BlobTables::validate(const Header& h, std::span<const std::byte> tables) {
  BlobTables blob;
  std::uint64_t blob_bytes = 0;
  if (auto ok = blob.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  if (h.blob_bytes != blob_bytes) {
    return corrupt_header("blob_bytes = " + text(h.blob_bytes) + " must be " + text(blob_bytes));
  }
  if (tables.size() < blob.range().size) {
    return fail(ErrorCode::kTruncated,
                "blob: " + text(tables.size()) + " bytes of tables, the header announces " + text(blob.range().size));
  }
  if (auto ok = blob.read_tables(tables); !ok) return tl::unexpected(ok.error());
  return blob;
}

Result<BlobView> BlobView::validate(const Header& h, std::span<const std::byte> bytes) {
  BlobView view;
  std::uint64_t blob_bytes = 0;
  if (auto ok = view.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  const auto own_bytes = kChecks.check_size(h, blob_bytes, bytes);
  if (!own_bytes) return tl::unexpected(own_bytes.error());
  view.bytes_ = *own_bytes;
  const auto tables =
      view.bytes_.subspan(static_cast<std::size_t>(view.range().offset), static_cast<std::size_t>(view.range().size));
  if (auto ok = view.read_tables(tables); !ok) return tl::unexpected(ok.error());
  return view;
}

Result<void> BlobTables::read_tables(std::span<const std::byte> tables) {
  tables_ = tables;
  if (layout() == Layout::kRaw) return {};
  const TiledGeometry& g = geometry_;
  for (std::uint32_t p = 0; p < header_.palette_count; ++p) {
    for (std::uint32_t j = 0; j + 1 < kPaletteSize; ++j) {
      const auto exponent = [&](std::uint32_t k) {
        const auto rotated = static_cast<std::uint8_t>(palette(p)[k]);
        return static_cast<std::uint8_t>(rotated << 1 | rotated >> 7);
      };
      if (exponent(j) >= exponent(j + 1)) {
        return corrupt_payload("palette " + text(p) + " is not strictly ascending at entry " + text(j));
      }
    }
  }
  for (std::uint64_t row = 0; row < g.padded_rows; ++row) {
    if (row_palette(row) >= header_.palette_count) {
      return corrupt_payload("row_palettes[" + text(row) + "] = " + text(row_palette(row)) +
                             " is out of range: the blob has " + text(header_.palette_count) + " palettes");
    }
  }
  // Starts never decrease and never grow by more than an escaped tile, from 0 to exception_units.
  std::uint64_t begin = exception_begin(0);
  if (begin != 0) return corrupt_payload("the exceptions of tile 0 begin at unit " + text(begin) + ", not at 0");
  for (std::uint64_t tile = 0; tile < g.tiles; ++tile) {
    const std::uint64_t end = exception_begin(tile + 1);
    if (end < begin || end - begin > kEscapedTileUnits) {
      return corrupt_payload("the exceptions of tile " + text(tile) + " range from unit " + text(begin) + " to " +
                             text(end));
    }
    begin = end;
  }
  if (begin != header_.exception_units) {
    return corrupt_payload("the tile table ends at exception unit " + text(begin) + ", the header announces " +
                           text(header_.exception_units));
  }
  return {};
}

}  // namespace unweight::format
