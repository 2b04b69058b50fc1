// SPDX-License-Identifier: Apache-2.0
//
// From bytes to a validated view: the first of the three gates. Whoever holds a BlobView may index its tables without
// further checks; no table value can lead outside the blob.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <format/layout.hpp>
#include <span>
#include <unweight/result.hpp>

namespace unweight::format {

enum class Layout : std::uint8_t { kRaw = 0, kTiled = 1 };

/// Little-endian load from any address. The format is little-endian, and so is every supported machine.
template <class T>
[[nodiscard]] inline T load(const std::byte* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
inline void store(std::byte* at, T value) noexcept {
  std::memcpy(at, &value, sizeof value);
}

/// Reads the header and checks what must hold before its checksum is worth computing: length, magic, version.
[[nodiscard]] Result<Header> read_header(std::span<const std::byte> bytes);

/// A range of a blob's bytes.
struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

/// A blob's header and tables, which lie between its tiles and its exceptions, validated. Does not own the bytes.
class BlobTables {
 public:
  /// Validates `header` (as read_header() returned it) and the tables, the bytes of range(): of a raw blob, none. Time
  /// is proportional to the number of rows and tiles, not of values. Errors: kTruncated, kCorruptHeader,
  /// kCorruptPayload.
  [[nodiscard]] static Result<BlobTables> validate(const Header& header, std::span<const std::byte> tables);

  /// Where the tables lie. Errors: kCorruptHeader.
  [[nodiscard]] static Result<ByteRange> range(const Header& header);

  [[nodiscard]] const Header& header() const noexcept { return header_; }
  [[nodiscard]] Layout layout() const noexcept { return static_cast<Layout>(header_.layout); }
  [[nodiscard]] std::uint64_t values() const noexcept { return header_.batch * header_.rows * header_.cols; }

  // Tiled blobs only from here on.

  [[nodiscard]] const TiledGeometry& geometry() const noexcept { return geometry_; }

  /// The 8 rotated exponents of palette `index`.
  [[nodiscard]] const std::byte* palette(std::uint32_t index) const noexcept {
    return table(geometry_.palettes_offset) + std::size_t{index} * kPaletteSize;
  }
  /// The palette that padded row `row` (over all matrices) uses.
  [[nodiscard]] std::uint8_t row_palette(std::uint64_t row) const noexcept {
    return static_cast<std::uint8_t>(*(table(geometry_.row_palettes_offset) + row));
  }
  /// First unit of the tile's exceptions; `tile` may be geometry().tiles, the end of the stream.
  [[nodiscard]] std::uint64_t exception_begin(std::uint64_t tile) const noexcept {
    return std::uint64_t{load<std::uint32_t>(table(geometry_.segment_starts_offset) +
                                             tile / kTilesPerSegment * sizeof(std::uint32_t))} +
           load<std::uint16_t>(table(geometry_.tile_starts_offset) + tile * sizeof(std::uint16_t));
  }
  [[nodiscard]] std::uint32_t exception_units(std::uint64_t tile) const noexcept {
    return static_cast<std::uint32_t>(exception_begin(tile + 1) - exception_begin(tile));
  }

 protected:
  /// Checks the header alone; `blob_bytes` is set to the size that it stands for.
  [[nodiscard]] Result<void> read(const Header& header, std::uint64_t& blob_bytes);
  [[nodiscard]] ByteRange range() const noexcept {
    return {geometry_.segment_starts_offset, geometry_.exceptions_offset - geometry_.segment_starts_offset};
  }
  /// Validates the tables, the bytes of range().
  [[nodiscard]] Result<void> read_tables(std::span<const std::byte> tables);

 private:
  [[nodiscard]] const std::byte* table(std::uint64_t offset) const noexcept {
    return tables_.data() + (offset - geometry_.segment_starts_offset);
  }

  Header header_{};
  TiledGeometry geometry_{};  ///< all zero for a raw blob
  std::span<const std::byte> tables_;
};

/// A whole blob whose header and tables have been validated.
class BlobView : public BlobTables {
 public:
  /// As BlobTables::validate(), with all of the blob's bytes.
  [[nodiscard]] static Result<BlobView> validate(const Header& header, std::span<const std::byte> bytes);

  /// The blob alone, without bytes that follow it.
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  /// Everything after the header: what the payload checksum covers.
  [[nodiscard]] std::span<const std::byte> payload() const noexcept { return bytes_.subspan(kHeaderBytes); }

  // Tiled blobs only from here on.

  [[nodiscard]] const std::byte* tile(std::uint64_t tile) const noexcept {
    return bytes_.data() + geometry().tiles_offset + tile * kTileBytes;
  }
  /// Address of an exception unit (2 bytes, any alignment).
  [[nodiscard]] const std::byte* exception_unit(std::uint64_t unit) const noexcept {
    return bytes_.data() + geometry().exceptions_offset + unit * sizeof(std::uint16_t);
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace unweight::format
