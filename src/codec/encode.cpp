// SPDX-License-Identifier: Apache-2.0
//
// The quick encoder. One pass over the values, in parallel over chunks of strips: while a strip is in cache it is
// hashed, its exponents are counted, its rows get the palettes they like best, and its tiles are written straight to
// their place in the blob. Exceptions are kept aside until their exponents are all known, and then written. Where there
// are more than memory is meant for, they are dropped, and their chunks are encoded once more when they are written.
//
// The blob is a pure function of the values; src/codec/reference.cpp states the same function in the plainest terms.
#include <array>
#include <atomic>
#include <codec/arguments.hpp>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/out_of_memory.hpp>
#include <codec/palette.hpp>
#include <codec/parallel.hpp>
#include <codec/strips.hpp>
#include <fmt/format.h>
#include <format/bf16.hpp>
#include <mutex>
#include <new>
#include <optional>

namespace unweight {
namespace codec {
namespace {

using namespace format;

/// While a tile is encoded, a tile's worth of the next strip is brought to the L2 cache: encoding rows of 384 values is
/// 1.1 times as fast. Not more than this much of a strip: the strip at work needs as much room.
constexpr std::size_t kMostPrefetchBytes = std::size_t{128} << 10;

std::uint64_t value_count(const MatrixShape& shape) { return shape.batch * shape.rows * shape.cols; }

/// Exceptions are kept up to one for so many values: 1/16 of the tensor's bytes. Trained weights have one for 60 to 90.
constexpr std::uint64_t kValuesPerKeptException = 32;
constexpr std::uint64_t kAlwaysKept = std::uint64_t{1} << 16;

/// The exceptions of a chunk of strips.
struct ChunkExceptions {
  std::vector<std::uint32_t> found;     ///< position | exponent << 16, in tile order, positions ascending
  std::vector<std::uint16_t> per_tile;  ///< how many of them each tile of the chunk has: 0 to 1024
  bool dropped = false;                 ///< the two above are not kept
  std::vector<std::uint16_t> units;     ///< what is written: lists and exponent planes
  std::vector<std::uint16_t> units_per_tile;
};

/// Gives a vector's memory back; assigning {} would keep it.
template <class T>
void release(std::vector<T>& vector) {
  vector = std::vector<T>();
}

class TiledEncoder {
 public:
  TiledEncoder(const TileKernels& kernels, std::span<const std::uint16_t> values, const MatrixShape& shape,
               unsigned threads, std::span<std::byte> out)
      : kernels_(kernels),
        values_(values),
        shape_(shape),
        threads_(threads),
        out_(out),
        strips_(shape),
        geometry_(tiled_geometry(shape.batch, shape.rows, shape.cols, 1)),
        chunks_(static_cast<std::size_t>(ceil_div(strips_.count(), strips_per_chunk(shape)))),
        row_palettes_(static_cast<std::size_t>(geometry_.padded_rows)),
        content_(static_cast<std::size_t>(strips_.count())) {}

  /// Writes the blob but for its checksums, and returns its size; 0 when tiles do not pay. `raw_bytes` is the size of
  /// the raw blob, which `out` can hold, and in which the tiles alone would fit.
  std::uint64_t run(std::uint64_t raw_bytes) {
    // Exceptions beyond a limit cannot pay, whatever else is found: time to stop.
    const std::uint64_t most_bytes = raw_bytes - raw_bytes / kMinSavingDivisor;
    const auto limit_units = [&] {
      units_limit_ = (most_bytes - std::min(most_bytes, geometry_.exceptions_offset)) / sizeof(std::uint16_t);
    };
    limit_units();

    if (!encode_strips(true)) return 0;
    if (!make_palettes() && !encode_strips(false)) return 0;

    geometry_ =
        tiled_geometry(shape_.batch, shape_.rows, shape_.cols, static_cast<std::uint32_t>(dictionary_.palettes.size()));
    limit_units();
    const std::optional<std::uint64_t> units = write_exceptions();
    if (!units) return 0;
    const std::uint64_t blob_bytes = geometry_.blob_bytes(*units);
    if (!tiles_pay(blob_bytes, raw_bytes) || *units > UINT32_MAX) return 0;
    std::fill(exception_at(*units), out_.data() + blob_bytes, std::byte{0});
    write_tables();

    Header h{};
    h.layout = static_cast<std::uint8_t>(Layout::kTiled);
    h.exception_base = exception_base_;
    h.palette_count = static_cast<std::uint32_t>(dictionary_.palettes.size());
    h.exception_units = *units;
    finish_header(h, shape_, geometry_, blob_bytes, out_);
    return blob_bytes;
  }

  [[nodiscard]] std::uint64_t content_checksum() const { return combine_chunks(content_); }

 private:
  using ExponentTotals = std::array<std::uint64_t, 256>;

  /// Calls body(chunk, first strip, strip behind the last) for chunks [begin, end).
  template <class Body>
  void for_chunks(std::uint64_t begin, std::uint64_t end, const Body& body) {
    const std::uint64_t per_chunk = strips_per_chunk(shape_);
    parallel_for(threads_, end - begin, [&](std::uint64_t i) {
      const std::uint64_t chunk = begin + i;
      body(chunk, chunk * per_chunk, std::min(strips_.count(), (chunk + 1) * per_chunk));
    });
  }

  /// The main pass. `choose`: each row takes its best palette; otherwise row_palettes_ is final. Returns false when
  /// there are too many exceptions for tiles to pay.
  bool encode_strips(bool choose) {
    std::atomic<std::uint64_t> units_at_least{0}, kept{0};
    const std::uint64_t most_kept = values_.size() / kValuesPerKeptException + kAlwaysKept;
    outside_ = {};
    std::mutex outside_mutex;
    for_chunks(0, chunks_.size(), [&](std::uint64_t chunk, std::uint64_t strip_begin, std::uint64_t strip_end) {
      if (units_at_least > units_limit_) return;
      ChunkExceptions exceptions;
      exceptions.per_tile.reserve(static_cast<std::size_t>((strip_end - strip_begin) * geometry_.tiles_per_strip));
      for (std::uint64_t strip = strip_begin; strip < strip_end; ++strip) {
        if (choose) {
          content_[static_cast<std::size_t>(strip)] = strip_checksum(kernels_, strips_.values(values_, strip));
          choose_palettes(strip);
        }
        units_at_least += encode_strip(strip, exceptions);
        if (units_at_least > units_limit_) return;
      }
      ExponentTotals local{};
      for (const std::uint32_t exception : exceptions.found) ++local[exception >> 16];
      const std::uint64_t room = exceptions.found.capacity();
      if (kept += room; kept > most_kept) {
        kept -= room;
        exceptions = {};
        exceptions.dropped = true;
      }
      chunks_[static_cast<std::size_t>(chunk)] = std::move(exceptions);
      const std::lock_guard lock(outside_mutex);
      for (std::size_t e = 0; e < local.size(); ++e) outside_[e] += local[e];
    });
    return units_at_least <= units_limit_;
  }

  [[nodiscard]] const std::uint16_t* row_values(std::uint64_t strip, std::uint32_t row) const {
    return strips_.values(values_, strip).data() + row * shape_.cols;
  }

  void choose_palettes(std::uint64_t strip) {
    for (std::uint32_t row = 0; row < strips_.rows(strip); ++row) {
      row_palettes_[static_cast<std::size_t>(strip * kTileRows + row)] =
          kernels_.choose_palette(row_values(strip, row), static_cast<std::size_t>(shape_.cols));
    }
    // Rows of padding take that of the strip's first row.
    for (std::uint32_t row = strips_.rows(strip); row < kTileRows; ++row) {
      row_palettes_[static_cast<std::size_t>(strip * kTileRows + row)] =
          row_palettes_[static_cast<std::size_t>(strip * kTileRows)];
    }
  }

  /// Writes the strip's tiles and returns how many exception units they take at least.
  std::uint64_t encode_strip(std::uint64_t strip, ChunkExceptions& exceptions) {
    StripPalettes palettes;
    std::copy_n(row_palettes_.begin() + static_cast<std::ptrdiff_t>(strip * kTileRows), kTileRows,
                palettes.plain.begin());
    const auto cols = static_cast<std::size_t>(shape_.cols);
    auto next = std::as_bytes(after(values_, strips_.values(values_, strip)));
    next = next.first(std::min<std::size_t>(next.size(), kMostPrefetchBytes));
    std::uint64_t units = 0;
    for (std::uint64_t k = 0; k < geometry_.tiles_per_strip; ++k) {
      const std::size_t part = std::min<std::size_t>(next.size(), kTileValues * sizeof(std::uint16_t));
      prefetch(next.first(part));
      next = next.subspan(part);
      const std::uint64_t tile = strip * geometry_.tiles_per_strip + k;
      const auto col = static_cast<std::size_t>(k * kTileCols);
      const std::uint16_t* source = row_values(strip, 0) + col;
      std::size_t stride = cols;
      std::array<std::uint16_t, kTileValues> full;
      if (strips_.rows(strip) < kTileRows || cols - col < kTileCols) {
        copy_ragged(strip, col, palettes, full);
        source = full.data();
        stride = kTileCols;
      }
      TileExceptions found;
      std::byte* const at = out_.data() + geometry_.tiles_offset + tile * kTileBytes;
      const std::uint32_t count = kernels_.encode(source, stride, palettes, at, found.data());
      exceptions.found.insert(exceptions.found.end(), found.begin(), found.begin() + count);
      exceptions.per_tile.push_back(static_cast<std::uint16_t>(count));
      units += std::min(count, kEscapedTileUnits);
    }
    return units;
  }

  /// Copies a tile that sticks out of the matrix, filling up with values that encode to sign+mantissa 0 and code 0:
  /// they decode to small finite numbers, which a kernel may multiply by zero.
  void copy_ragged(std::uint64_t strip, std::size_t col, const StripPalettes& palettes,
                   std::array<std::uint16_t, kTileValues>& full) const {
    const std::size_t width = std::min<std::size_t>(kTileCols, static_cast<std::size_t>(shape_.cols) - col);
    for (std::uint32_t row = 0; row < kTileRows; ++row) {
      std::uint16_t* out = full.data() + row * kTileCols;
      std::fill_n(out, kTileCols, static_cast<std::uint16_t>(palettes.plain[row][0] << 7));
      if (row < strips_.rows(strip)) std::copy_n(row_values(strip, row) + col, width, out);
    }
  }

  /// Makes the dictionary from the rows' palettes. Returns false when it could not take them all in: then rows without
  /// their own palette have been given the nearest, and the tiles must be encoded again.
  bool make_palettes() {
    dictionary_ = make_dictionary(row_palettes_);
    if (std::find(dictionary_.numbers.begin(), dictionary_.numbers.end(), Dictionary::kMissing) ==
        dictionary_.numbers.end()) {
      return true;
    }
    for_chunks(0, chunks_.size(), [&](std::uint64_t, std::uint64_t strip_begin, std::uint64_t strip_end) {
      RowCounts counts;
      for (std::uint64_t row = strip_begin * kTileRows; row < strip_end * kTileRows; ++row) {
        std::uint32_t& number = dictionary_.numbers[static_cast<std::size_t>(row)];
        if (number != Dictionary::kMissing) continue;
        const std::uint64_t strip = row / kTileRows;
        const auto row_in_strip = static_cast<std::uint32_t>(row % kTileRows);
        if (row_in_strip < strips_.rows(strip)) {
          counts.assign(row_values(strip, row_in_strip), static_cast<std::size_t>(shape_.cols));
          number = static_cast<std::uint32_t>(nearest_palette(counts, dictionary_.palettes));
        } else {
          number = dictionary_.numbers[static_cast<std::size_t>(strip * kTileRows)];
        }
        row_palettes_[static_cast<std::size_t>(row)] = dictionary_.palettes[number];
      }
    });
    return false;
  }

  /// Writes all lists and exponent planes, a few chunks at a time, so that no more of them is held than that; returns
  /// their size in units, or nothing where they are too many.
  std::optional<std::uint64_t> write_exceptions() {
    exception_base_ = best_exception_base(outside_);
    const std::uint64_t at_once = 2 * std::uint64_t{threads_};
    std::uint64_t written = 0;
    for (std::uint64_t begin = 0; begin < chunks_.size(); begin += at_once) {
      const std::uint64_t end = std::min<std::uint64_t>(chunks_.size(), begin + at_once);
      for_chunks(begin, end, [&](std::uint64_t chunk, std::uint64_t strip_begin, std::uint64_t strip_end) {
        ChunkExceptions& exceptions = chunks_[static_cast<std::size_t>(chunk)];
        if (exceptions.dropped) {
          for (std::uint64_t strip = strip_begin; strip < strip_end; ++strip) encode_strip(strip, exceptions);
        }
        make_units(strip_begin * geometry_.tiles_per_strip, exceptions);
      });
      for (std::uint64_t chunk = begin; chunk < end; ++chunk) {
        std::vector<std::uint16_t>& units = chunks_[static_cast<std::size_t>(chunk)].units;
        if (units.size() > units_limit_ - written) return std::nullopt;
        if (!units.empty()) std::memcpy(exception_at(written), units.data(), units.size() * sizeof(std::uint16_t));
        written += units.size();
        release(units);
      }
    }
    return written;
  }

  [[nodiscard]] std::byte* exception_at(std::uint64_t unit) const {
    return out_.data() + geometry_.exceptions_offset + unit * sizeof(std::uint16_t);
  }

  /// Turns a chunk's found exceptions into lists and exponent planes.
  void make_units(std::uint64_t first_tile, ChunkExceptions& exceptions) const {
    exceptions.units.reserve(exceptions.found.size());
    exceptions.units_per_tile.reserve(exceptions.per_tile.size());
    std::span<const std::uint32_t> rest = exceptions.found;
    for (std::size_t i = 0; i < exceptions.per_tile.size(); ++i) {
      const auto found = rest.first(exceptions.per_tile[i]);
      rest = rest.subspan(found.size());
      const std::size_t before = exceptions.units.size();
      for (const std::uint32_t exception : found) {
        const std::uint32_t position = exception & 0xffff;
        const auto exponent = static_cast<std::uint8_t>(exception >> 16);
        if (exponent_fits_entry(exponent, exception_base_)) {
          exceptions.units.push_back(make_entry(position, exponent, exception_base_));
        } else {
          exceptions.units.push_back(make_extended_entry(position));
          exceptions.units.push_back(exponent);
        }
      }
      if (exceptions.units.size() - before >= kEscapedTileUnits) {
        exceptions.units.resize(before);
        append_plane(first_tile + i, found, exceptions.units);
      }
      exceptions.units_per_tile.push_back(static_cast<std::uint16_t>(exceptions.units.size() - before));
    }
    release(exceptions.found);
    release(exceptions.per_tile);
  }

  /// The exponents of a tile, decoded from its codes and corrected by its exceptions.
  void append_plane(std::uint64_t tile, std::span<const std::uint32_t> found, std::vector<std::uint16_t>& units) const {
    const std::uint64_t strip = tile / geometry_.tiles_per_strip;
    StripPalettes palettes;
    for (std::uint32_t row = 0; row < kTileRows; ++row) {
      const Palette& palette = row_palettes_[static_cast<std::size_t>(strip * kTileRows + row)];
      std::transform(palette.begin(), palette.end(), palettes.rotated[row].begin(), rotate_exponent);
    }
    std::array<std::uint16_t, kTileValues> decoded;
    kernels_.decode(out_.data() + geometry_.tiles_offset + tile * kTileBytes, palettes, decoded.data(), kTileCols);
    std::array<std::uint8_t, kTileValues> plane;
    for (std::uint32_t p = 0; p < kTileValues; ++p) {
      plane[p] = rotate_exponent(exponent_of(decoded[position_row(p) * kTileCols + position_col(p)]));
    }
    for (const std::uint32_t exception : found) {
      plane[exception & 0xffff] = rotate_exponent(static_cast<std::uint8_t>(exception >> 16));
    }
    for (std::uint32_t p = 0; p < kTileValues; p += 2) {
      units.push_back(static_cast<std::uint16_t>(plane[p] | plane[p + 1] << 8));
    }
  }

  void write_tables() {
    // Everything between the tiles and the exceptions, padding included, starts out as zero.
    std::fill(out_.begin() + static_cast<std::ptrdiff_t>(geometry_.segment_starts_offset),
              out_.begin() + static_cast<std::ptrdiff_t>(geometry_.exceptions_offset), std::byte{0});
    ExceptionTableWriter tables(geometry_, out_);
    for (const ChunkExceptions& exceptions : chunks_) {
      for (const std::uint16_t units : exceptions.units_per_tile) tables.add(units);
    }
    tables.finish();
    std::byte* row_palettes = out_.data() + geometry_.row_palettes_offset;
    for (const std::uint32_t number : dictionary_.numbers) *row_palettes++ = static_cast<std::byte>(number);
    std::byte* palettes = out_.data() + geometry_.palettes_offset;
    for (const Palette& palette : dictionary_.palettes) {
      for (const std::uint8_t exponent : palette) *palettes++ = std::byte{rotate_exponent(exponent)};
    }
  }

  const TileKernels& kernels_;
  std::span<const std::uint16_t> values_;
  MatrixShape shape_;
  unsigned threads_;
  std::span<std::byte> out_;
  Strips strips_;
  TiledGeometry geometry_;  ///< with one palette until the dictionary is known; tiles come before the palettes
  std::uint64_t units_limit_ = 0;
  std::vector<ChunkExceptions> chunks_;
  std::vector<Palette> row_palettes_;
  std::vector<std::uint64_t> content_;
  ExponentTotals outside_{};
  Dictionary dictionary_;
  std::uint8_t exception_base_ = 0;
};

std::uint64_t content_checksum_of(const TileKernels& kernels, std::span<const std::uint16_t> values,
                                  const MatrixShape& shape, unsigned threads) {
  const Strips strips(shape);
  std::vector<std::uint64_t> content(static_cast<std::size_t>(strips.count()));
  const std::uint64_t per_chunk = strips_per_chunk(shape);
  parallel_for(threads, ceil_div(strips.count(), per_chunk), [&](std::uint64_t chunk) {
    const std::uint64_t end = std::min(strips.count(), (chunk + 1) * per_chunk);
    for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) {
      content[static_cast<std::size_t>(strip)] = strip_checksum(kernels, strips.values(values, strip));
    }
  });
  return combine_chunks(content);
}

}  // namespace

void finish_header(Header& header, const MatrixShape& shape, const TiledGeometry& geometry, std::uint64_t blob_bytes,
                   std::span<std::byte> out) {
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version_major = kVersionMajor;
  header.version_minor = kVersionMinor;
  header.header_bytes = kHeaderBytes;
  header.blob_bytes = blob_bytes;
  header.dtype = kDtypeBf16;
  header.batch = shape.batch;
  header.rows = shape.rows;
  header.cols = shape.cols;
  header.tiles_offset = geometry.tiles_offset;
  header.segment_starts_offset = geometry.segment_starts_offset;
  header.tile_starts_offset = geometry.tile_starts_offset;
  header.row_palettes_offset = geometry.row_palettes_offset;
  header.palettes_offset = geometry.palettes_offset;
  header.exceptions_offset = geometry.exceptions_offset;
  std::memcpy(out.data(), &header, sizeof header);
}

std::uint64_t write_raw(std::span<const std::uint16_t> values, const MatrixShape& shape, std::span<std::byte> out,
                        unsigned threads) {
  const std::uint64_t blob_bytes = raw_blob_bytes(values.size());
  Header h{};
  h.layout = static_cast<std::uint8_t>(Layout::kRaw);
  finish_header(h, shape, TiledGeometry{}, blob_bytes, out);
  if (!values.empty()) std::memcpy(out.data() + kHeaderBytes, values.data(), values.size_bytes());
  std::fill(out.data() + kHeaderBytes + values.size_bytes(), out.data() + blob_bytes, std::byte{0});
  seal_blob(out.first(static_cast<std::size_t>(blob_bytes)),
            content_checksum_of(tile_kernels(), values, shape, threads), threads);
  return blob_bytes;
}

bool tiles_pay(std::uint64_t tiled_bytes, std::uint64_t raw_bytes) {
  return tiled_bytes <= raw_bytes - raw_bytes / kMinSavingDivisor;
}

Result<std::uint64_t> encode_with(const TileKernels& kernels, std::span<const std::uint16_t> values,
                                  const MatrixShape& shape, std::span<std::byte> out, unsigned threads) {
  auto bound = check_encode_arguments(values, shape, out);
  if (!bound) return bound;
  // Thin shapes are mostly padding: not worth the encoder's tables.
  const std::uint64_t least =
      values.empty() ? *bound : tiled_geometry(shape.batch, shape.rows, shape.cols, 1).blob_bytes(0);
  if (tiles_pay(least, *bound)) {
    TiledEncoder encoder(kernels, values, shape, threads, out);
    if (const std::uint64_t size = encoder.run(*bound); size != 0) {
      seal_blob(out.first(static_cast<std::size_t>(size)), encoder.content_checksum(), threads);
      return size;
    }
  }
  return write_raw(values, shape, out, threads);
}

}  // namespace codec

Result<std::uint64_t> encode_bound(const MatrixShape& shape) try {
  const std::uint64_t values = format::saturated_values(shape.batch, shape.rows, shape.cols);
  if (values == format::kMaxValues) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("shape {} x {} x {} is too large: 2^48 values or more",
                                                         shape.batch, shape.rows, shape.cols));
  }
  return format::raw_blob_bytes(values);
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("refusing a shape that is too large");
}

Result<std::uint64_t> encode_into(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                  std::span<std::byte> out, const EncodeOptions& options) try {
  return codec::encode_with(codec::tile_kernels(), values, shape, out, codec::resolve_threads(options.threads));
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("encoding {} values", values.size());
}

Result<std::vector<std::byte>> encode(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                      const EncodeOptions& options) try {
  const auto bound = encode_bound(shape);
  if (!bound) return tl::unexpected(bound.error());
  std::vector<std::byte> blob;
  if (values.size() == codec::value_count(shape)) blob.resize(static_cast<std::size_t>(*bound));
  const auto size = encode_into(values, shape, blob, options);
  if (!size) return tl::unexpected(size.error());
  blob.resize(static_cast<std::size_t>(*size));
  return blob;
} catch (const std::bad_alloc&) {
  return codec::fail_out_of_memory("encoding {} values", values.size());
}

}  // namespace unweight
