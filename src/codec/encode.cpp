// SPDX-License-Identifier: Apache-2.0
//
// The quick encoder. Two passes over the values, each parallel over strips:
//   survey  counts exponents row by row: palettes, the number of exceptions, the content checksum. It knows the size of
//           the blob to within the escaped tiles, so that tensors that do not pay are never encoded.
//   write   encodes the tiles straight into the blob and gathers their exceptions.
// The blob is a pure function of the values; src/codec/reference.cpp states the same function in the plainest terms.
#include <fmt/format.h>

#include <array>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/palette.hpp>
#include <codec/parallel.hpp>
#include <codec/strips.hpp>
#include <format/bf16.hpp>
#include <mutex>
#include <new>
#include <numeric>

namespace unweight {
namespace codec {
namespace {

using namespace format;

std::uint64_t value_count(const MatrixShape& shape) { return shape.batch * shape.rows * shape.cols; }

/// What the survey finds out.
struct Survey {
  std::vector<Palette> dictionary;           ///< at most 256
  std::vector<std::uint8_t> row_palettes;    ///< one a padded row
  std::vector<std::uint64_t> content;        ///< checksum of each strip
  std::uint64_t exception_units_bound = 0;   ///< at least what the tiles will need
  std::uint8_t exception_base = 0;
};

using ExceptionHistogram = std::array<std::uint64_t, 256>;

void add_outside(const ExponentHistogram& histogram, const Palette& palette, ExceptionHistogram& total, int sign) {
  ExponentHistogram outside = histogram;
  for (const std::uint8_t e : palette) outside[e] = 0;
  for (std::size_t e = 0; e < outside.size(); ++e) {
    total[e] += sign > 0 ? std::uint64_t{outside[e]} : std::uint64_t{0} - outside[e];
  }
}

Survey survey(std::span<const std::uint16_t> values, const MatrixShape& shape, const TileKernels& kernels,
              unsigned threads) {
  const Strips strips(shape);
  const auto padded_rows = static_cast<std::size_t>(strips.count() * kTileRows);
  const std::uint64_t tiles_per_strip = ceil_div(shape.cols, kTileCols);
  Survey result;
  result.content.resize(static_cast<std::size_t>(strips.count()));
  std::vector<Palette> wanted(padded_rows);
  std::vector<std::uint64_t> outside(static_cast<std::size_t>(strips.count()));
  ExceptionHistogram exceptions{};
  std::mutex exceptions_mutex;

  const auto row_histogram = [&](std::uint64_t strip, std::uint32_t row, ExponentHistogram& histogram) {
    const auto strip_values = strips.values(values, strip);
    kernels.histogram(strip_values.data() + row * shape.cols, static_cast<std::size_t>(shape.cols), histogram);
  };
  const std::uint64_t per_chunk = strips_per_chunk(shape);
  const auto for_strips = [&](const auto& body) {
    parallel_for(threads, ceil_div(strips.count(), per_chunk), [&](std::uint64_t chunk) {
      ExceptionHistogram local{};
      const std::uint64_t end = std::min(strips.count(), (chunk + 1) * per_chunk);
      for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) body(strip, local);
      const std::lock_guard lock(exceptions_mutex);
      for (std::size_t e = 0; e < local.size(); ++e) exceptions[e] += local[e];
    });
  };

  for_strips([&](std::uint64_t strip, ExceptionHistogram& local) {
    result.content[static_cast<std::size_t>(strip)] = strip_checksum(strips.values(values, strip));
    for (std::uint32_t row = 0; row < strips.rows(strip); ++row) {
      ExponentHistogram histogram;
      row_histogram(strip, row, histogram);
      const Palette palette = best_palette(histogram);
      wanted[static_cast<std::size_t>(strip * kTileRows + row)] = palette;
      outside[static_cast<std::size_t>(strip)] += count_outside(histogram, palette);
      add_outside(histogram, palette, local, 1);
    }
  });

  // Padding rows want nothing.
  std::vector<Palette> votes;
  votes.reserve(padded_rows);
  for (std::uint64_t strip = 0; strip < strips.count(); ++strip) {
    const auto begin = wanted.begin() + static_cast<std::ptrdiff_t>(strip * kTileRows);
    votes.insert(votes.end(), begin, begin + strips.rows(strip));
  }
  result.dictionary = make_dictionary(votes);
  votes = {};

  result.row_palettes.resize(padded_rows, 0);
  for_strips([&](std::uint64_t strip, ExceptionHistogram& local) {
    for (std::uint32_t row = 0; row < strips.rows(strip); ++row) {
      const auto index = static_cast<std::size_t>(strip * kTileRows + row);
      const auto found = std::lower_bound(result.dictionary.begin(), result.dictionary.end(), wanted[index]);
      if (found != result.dictionary.end() && *found == wanted[index]) {
        result.row_palettes[index] = static_cast<std::uint8_t>(found - result.dictionary.begin());
        continue;
      }
      ExponentHistogram histogram;
      row_histogram(strip, row, histogram);
      const std::uint8_t nearest = nearest_palette(histogram, result.dictionary);
      result.row_palettes[index] = nearest;
      const Palette& palette = result.dictionary[nearest];
      outside[static_cast<std::size_t>(strip)] +=
          count_outside(histogram, palette) - count_outside(histogram, wanted[index]);
      add_outside(histogram, wanted[index], local, -1);
      add_outside(histogram, palette, local, 1);
    }
  });

  // A list holds one unit an exception; one that no entry can hold turns its whole tile into an exponent plane.
  result.exception_base = best_exception_base(exceptions);
  std::array<bool, 256> fits;
  bool all_fit = true;
  for (std::uint32_t e = 0; e < fits.size(); ++e) {
    fits[e] = exponent_fits_entry(static_cast<std::uint8_t>(e), result.exception_base);
    all_fit = all_fit && (fits[e] || exceptions[e] == 0);
  }
  if (!all_fit) {
    for_strips([&](std::uint64_t strip, ExceptionHistogram&) {
      for (std::uint32_t row = 0; row < strips.rows(strip); ++row) {
        ExponentHistogram histogram;
        row_histogram(strip, row, histogram);
        for (const std::uint8_t e : result.dictionary[result.row_palettes[strip * kTileRows + row]]) histogram[e] = 0;
        for (std::size_t e = 0; e < histogram.size(); ++e) {
          if (!fits[e]) outside[static_cast<std::size_t>(strip)] += std::uint64_t{histogram[e]} * (kEscapedTileUnits - 1);
        }
      }
    });
  }
  for (const std::uint64_t strip_outside : outside) {
    result.exception_units_bound += std::min(strip_outside, tiles_per_strip * kEscapedTileUnits);
  }
  return result;
}

/// Copies a tile that sticks out of the matrix, filling up with values that encode to sign+mantissa 0 and code 0: they
/// decode to small finite numbers, which a kernel may multiply by zero.
void copy_ragged(std::span<const std::uint16_t> strip_values, std::uint64_t cols, std::uint64_t col,
                 std::uint32_t rows, const StripPalettes& palettes, std::uint16_t* full) {
  const std::uint64_t width = std::min<std::uint64_t>(kTileCols, cols - col);
  for (std::uint32_t row = 0; row < kTileRows; ++row) {
    std::uint16_t* out = full + row * kTileCols;
    std::fill_n(out, kTileCols, static_cast<std::uint16_t>(palettes.plain[row][0] << 7));
    if (row < rows) std::copy_n(strip_values.data() + row * cols + col, width, out);
  }
}

/// Appends the tile's list of exceptions, or its exponent plane when the list cannot hold them.
void append_exceptions(const std::uint16_t* values, std::size_t stride, const ExceptionMask& mask,
                       std::uint8_t exception_base, std::vector<std::uint16_t>& units) {
  const std::size_t begin = units.size();
  for (std::uint32_t word = 0; word < mask.size(); ++word) {
    for (std::uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
      const std::uint32_t p = word * 16 + static_cast<std::uint32_t>(__builtin_ctz(bits));
      const std::uint8_t exponent = exponent_of(values[position_row(p) * stride + position_col(p)]);
      if (!exponent_fits_entry(exponent, exception_base) || units.size() - begin == kEscapedTileUnits - 1) {
        units.resize(begin);
        for (std::uint32_t q = 0; q < kTileValues; q += 2) {
          const auto rotated = [&](std::uint32_t position) {
            return std::uint32_t{
                rotate_exponent(exponent_of(values[position_row(position) * stride + position_col(position)]))};
          };
          units.push_back(static_cast<std::uint16_t>(rotated(q) | rotated(q + 1) << 8));
        }
        return;
      }
      units.push_back(make_entry(p, exponent, exception_base));
    }
  }
}

/// Writes tables, tiles and exceptions; returns the blob's size. `out` has room for the survey's bound.
std::uint64_t write_tiled(std::span<const std::uint16_t> values, const MatrixShape& shape, const Survey& survey,
                          const TileKernels& kernels, unsigned threads, std::span<std::byte> out) {
  const auto palette_count = static_cast<std::uint32_t>(survey.dictionary.size());
  const TiledGeometry g = tiled_geometry(shape.batch, shape.rows, shape.cols, palette_count);
  const Strips strips(shape);
  std::memset(out.data(), 0, static_cast<std::size_t>(g.tiles_offset));
  for (std::uint32_t p = 0; p < palette_count; ++p) {
    for (std::uint32_t j = 0; j < kPaletteSize; ++j) {
      out[static_cast<std::size_t>(g.palettes_offset + p * kPaletteSize + j)] =
          std::byte{rotate_exponent(survey.dictionary[p][j])};
    }
  }
  std::memcpy(out.data() + g.row_palettes_offset, survey.row_palettes.data(), survey.row_palettes.size());

  const std::uint64_t per_chunk = strips_per_chunk(shape);
  const std::uint64_t chunks = ceil_div(strips.count(), per_chunk);
  std::vector<std::vector<std::uint16_t>> chunk_units(static_cast<std::size_t>(chunks));
  std::vector<std::uint16_t> tile_units(static_cast<std::size_t>(g.tiles));
  parallel_for(threads, chunks, [&](std::uint64_t chunk) {
    std::vector<std::uint16_t>& units = chunk_units[static_cast<std::size_t>(chunk)];
    const std::uint64_t end = std::min(strips.count(), (chunk + 1) * per_chunk);
    for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) {
      StripPalettes palettes;
      for (std::uint32_t row = 0; row < kTileRows; ++row) {
        palettes.plain[row] = survey.dictionary[survey.row_palettes[static_cast<std::size_t>(strip * kTileRows + row)]];
      }
      const auto strip_values = strips.values(values, strip);
      for (std::uint64_t k = 0; k < g.tiles_per_strip; ++k) {
        const std::uint64_t tile = strip * g.tiles_per_strip + k;
        const std::uint64_t col = k * kTileCols;
        const std::uint16_t* source = strip_values.data() + col;
        std::size_t stride = static_cast<std::size_t>(shape.cols);
        std::array<std::uint16_t, kTileValues> full;
        if (strips.rows(strip) < kTileRows || shape.cols - col < kTileCols) {
          copy_ragged(strip_values, shape.cols, col, strips.rows(strip), palettes, full.data());
          source = full.data();
          stride = kTileCols;
        }
        ExceptionMask mask;
        const std::size_t units_before = units.size();
        if (kernels.encode(source, stride, palettes, out.data() + g.tiles_offset + tile * kTileBytes, mask)) {
          append_exceptions(source, stride, mask, survey.exception_base, units);
        }
        tile_units[static_cast<std::size_t>(tile)] = static_cast<std::uint16_t>(units.size() - units_before);
      }
    }
  });

  ExceptionTableWriter tables(g, out);
  for (const std::uint16_t units : tile_units) tables.add(units);
  const std::uint64_t unit = tables.finish();
  const std::uint64_t blob_bytes = g.blob_bytes(unit);
  std::byte* at = out.data() + g.exceptions_offset;
  for (const auto& units : chunk_units) {
    if (units.empty()) continue;
    std::memcpy(at, units.data(), units.size() * sizeof(std::uint16_t));
    at += units.size() * sizeof(std::uint16_t);
  }
  std::fill(at, out.data() + blob_bytes, std::byte{0});

  Header h{};
  h.layout = static_cast<std::uint8_t>(Layout::kTiled);
  h.exception_base = survey.exception_base;
  h.palette_count = palette_count;
  h.exception_units = unit;
  h.palettes_offset = g.palettes_offset;
  h.row_palettes_offset = g.row_palettes_offset;
  h.segment_starts_offset = g.segment_starts_offset;
  h.tile_starts_offset = g.tile_starts_offset;
  h.tiles_offset = g.tiles_offset;
  h.exceptions_offset = g.exceptions_offset;
  finish_header(h, shape, blob_bytes, out);
  return blob_bytes;
}

std::vector<std::uint64_t> content_checksums(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                             unsigned threads) {
  const Strips strips(shape);
  std::vector<std::uint64_t> content(static_cast<std::size_t>(strips.count()));
  const std::uint64_t per_chunk = strips_per_chunk(shape);
  parallel_for(threads, ceil_div(strips.count(), per_chunk), [&](std::uint64_t chunk) {
    const std::uint64_t end = std::min(strips.count(), (chunk + 1) * per_chunk);
    for (std::uint64_t strip = chunk * per_chunk; strip < end; ++strip) {
      content[static_cast<std::size_t>(strip)] = strip_checksum(strips.values(values, strip));
    }
  });
  return content;
}

}  // namespace

void finish_header(Header& header, const MatrixShape& shape, std::uint64_t blob_bytes, std::span<std::byte> out) {
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version_major = kVersionMajor;
  header.version_minor = kVersionMinor;
  header.header_bytes = kHeaderBytes;
  header.blob_bytes = blob_bytes;
  header.dtype = kDtypeBf16;
  header.batch = shape.batch;
  header.rows = shape.rows;
  header.cols = shape.cols;
  std::memcpy(out.data(), &header, sizeof header);
}

std::uint64_t write_raw(std::span<const std::uint16_t> values, const MatrixShape& shape, std::span<std::byte> out,
                        unsigned threads) {
  const std::uint64_t blob_bytes = raw_blob_bytes(values.size());
  Header h{};
  h.layout = static_cast<std::uint8_t>(Layout::kRaw);
  finish_header(h, shape, blob_bytes, out);
  if (!values.empty()) std::memcpy(out.data() + kHeaderBytes, values.data(), values.size_bytes());
  std::fill(out.data() + kHeaderBytes + values.size_bytes(), out.data() + blob_bytes, std::byte{0});
  seal_blob(out.first(static_cast<std::size_t>(blob_bytes)),
            combine_chunks(content_checksums(values, shape, threads)), threads);
  return blob_bytes;
}

bool tiles_pay(std::uint64_t tiled_bytes, std::uint64_t raw_bytes) {
  return tiled_bytes <= raw_bytes - raw_bytes / kMinSavingDivisor;
}

Result<std::uint64_t> encode_with(const TileKernels& kernels, std::span<const std::uint16_t> values,
                                  const MatrixShape& shape, std::span<std::byte> out, unsigned threads) {
  const auto bound = encode_bound(shape);
  if (!bound) return bound;
  if (values.size() != value_count(shape)) {
    return fail(ErrorCode::kShapeMismatch, fmt::format("{} values for shape {} x {} x {}, which has {}", values.size(),
                                                       shape.batch, shape.rows, shape.cols, value_count(shape)));
  }
  if (out.size() < *bound) {
    return fail(ErrorCode::kBufferTooSmall,
                fmt::format("output buffer of {} bytes, encode_bound() is {}", out.size(), *bound));
  }
  // With one palette and no exceptions: what tiles need at the very least. Keeps thin shapes out of the survey.
  const std::uint64_t least =
      values.empty() ? *bound : tiled_geometry(shape.batch, shape.rows, shape.cols, 1).blob_bytes(0);
  if (tiles_pay(least, *bound)) {
    const Survey surveyed = survey(values, shape, kernels, threads);
    const auto palette_count = static_cast<std::uint32_t>(surveyed.dictionary.size());
    const TiledGeometry g = tiled_geometry(shape.batch, shape.rows, shape.cols, palette_count);
    if (tiles_pay(g.blob_bytes(surveyed.exception_units_bound), *bound) &&
        surveyed.exception_units_bound <= UINT32_MAX) {
      const std::uint64_t size = write_tiled(values, shape, surveyed, kernels, threads, out);
      seal_blob(out.first(static_cast<std::size_t>(size)), combine_chunks(surveyed.content), threads);
      return size;
    }
  }
  return write_raw(values, shape, out, threads);
}

}  // namespace codec

Result<std::uint64_t> encode_bound(const MatrixShape& shape) {
  const std::uint64_t values = format::saturated_values(shape.batch, shape.rows, shape.cols);
  if (values == format::kMaxValues) {
    return fail(ErrorCode::kInvalidArgument, fmt::format("shape {} x {} x {} is too large: 2^48 values or more",
                                                         shape.batch, shape.rows, shape.cols));
  }
  return format::raw_blob_bytes(values);
}

Result<std::uint64_t> encode_into(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                  std::span<std::byte> out, const EncodeOptions& options) try {
  return codec::encode_with(codec::tile_kernels(), values, shape, out, codec::resolve_threads(options.threads));
} catch (const std::bad_alloc&) {
  return fail(ErrorCode::kOutOfMemory, fmt::format("out of memory while encoding {} values", values.size()));
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
  return fail(ErrorCode::kOutOfMemory, fmt::format("out of memory while encoding {} values", values.size()));
}

}  // namespace unweight
