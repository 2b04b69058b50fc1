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

Result<BlobView> BlobView::validate(const Header& h, std::span<const std::byte> bytes) {
  const auto counted = kChecks.check_common(h, static_cast<std::uint8_t>(Layout::kTiled));
  if (!counted) return tl::unexpected(counted.error());
  const std::uint64_t values = *counted;

  BlobView view;
  view.header_ = h;
  std::uint64_t expected_bytes = 0;
  if (view.layout() == Layout::kRaw) {
    if (h.palette_count != 0 || h.exception_units != 0 || h.exception_base != 0) {
      return corrupt_header("a raw blob has no palettes and no exceptions");
    }
    TiledGeometry none;  // all offsets zero
    if (auto ok = check_offsets(h, none); !ok) return tl::unexpected(ok.error());
    expected_bytes = raw_blob_bytes(values);
  } else {
    if (values == 0) return corrupt_header("a tiled blob cannot be empty");
    if (h.palette_count == 0 || h.palette_count > kMaxPalettes) {
      return corrupt_header("palette_count = " + text(h.palette_count) + " must be 1 to " + text(kMaxPalettes));
    }
    if (h.exception_base > kMaxExceptionBase) {
      return corrupt_header("exception_base = " + text(h.exception_base) + " must be at most " +
                            text(kMaxExceptionBase));
    }
    // Padding multiplies the values by at most 16 * 64, so no product below overflows.
    view.geometry_ = tiled_geometry(h.batch, h.rows, h.cols, h.palette_count);
    if (auto ok = check_offsets(h, view.geometry_); !ok) return tl::unexpected(ok.error());
    if (h.exception_units > view.geometry_.tiles * kEscapedTileUnits || h.exception_units > UINT32_MAX) {
      return corrupt_header("exception_units = " + text(h.exception_units) + " is too many for " +
                            text(view.geometry_.tiles) + " tiles");
    }
    expected_bytes = view.geometry_.blob_bytes(h.exception_units);
  }
  const auto own_bytes = kChecks.check_size(h, expected_bytes, bytes);
  if (!own_bytes) return tl::unexpected(own_bytes.error());
  view.bytes_ = *own_bytes;
  if (view.layout() == Layout::kTiled) {
    if (auto ok = view.validate_tables(); !ok) return tl::unexpected(ok.error());
  }
  return view;
}

Result<void> BlobView::validate_tables() const {
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
