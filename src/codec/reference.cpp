// SPDX-License-Identifier: Apache-2.0
#define XXH_INLINE_ALL
#include <algorithm>
#include <array>
#include <codec/reference.hpp>
#include <cstring>
#include <format/bf16.hpp>
#include <format/layout.hpp>
#include <map>
#include <tuple>
#include <utility>
#include <xxhash.h>

namespace unweight::codec {
namespace {

using namespace format;

using Exponents = std::array<std::uint8_t, 8>;
using Bytes = std::vector<std::byte>;

std::uint64_t hash(const void* at, std::size_t size) { return XXH3_64bits(at, size); }

template <class T>
T read(std::span<const std::byte> blob, std::uint64_t offset) {
  T value;
  std::memcpy(&value, blob.data() + offset, sizeof value);
  return value;
}

template <class T>
void write(Bytes& blob, std::uint64_t offset, T value) {
  std::memcpy(blob.data() + offset, &value, sizeof value);
}

/// FORMAT.md 3: value i of a lane has nibble i & 7 of word i >> 3. Only words 0 to 2 are stored: a code is 3 bits, so
/// bit 3 of each of their nibbles is free, and word b takes bit b of the codes of word 3 there.
std::array<std::uint32_t, 3> pack_codes(const std::array<std::uint8_t, 32>& codes) {
  std::array<std::uint32_t, 3> words{};
  for (std::uint32_t i = 0; i < 32; ++i) {
    const std::uint32_t nibble = 4 * (i & 7), code = codes[i];
    if (i < 24) {
      words[i >> 3] |= code << nibble;
    } else {
      for (std::uint32_t b = 0; b < 3; ++b) words[b] |= (code >> b & 1) << (nibble + 3);
    }
  }
  return words;
}

std::uint8_t unpack_code(const std::array<std::uint32_t, 3>& words, std::uint32_t i) {
  const std::uint32_t nibble = 4 * (i & 7);
  if (i < 24) return static_cast<std::uint8_t>(words[i >> 3] >> nibble & 7);
  std::uint32_t code = 0;
  for (std::uint32_t b = 0; b < 3; ++b) code |= (words[b] >> (nibble + 3) & 1) << b;
  return static_cast<std::uint8_t>(code);
}

/// FORMAT.md 6.1: the preferred palette of a row.
Exponents choose_palette(const std::array<std::uint64_t, 256>& counts) {
  const auto mode = std::max_element(counts.begin(), counts.end()) - counts.begin();
  std::array<int, 256> order;
  for (int e = 0; e < 256; ++e) order[static_cast<std::size_t>(e)] = e;
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    const auto key = [&](int e) {
      return std::tuple(~counts[static_cast<std::size_t>(e)], std::abs(e - static_cast<int>(mode)), e);
    };
    return key(a) < key(b);
  });
  Exponents palette;
  for (std::size_t j = 0; j < palette.size(); ++j) palette[j] = static_cast<std::uint8_t>(order[j]);
  std::sort(palette.begin(), palette.end());
  return palette;
}

bool contains(const Exponents& palette, std::uint8_t exponent) {
  return std::find(palette.begin(), palette.end(), exponent) != palette.end();
}

/// FORMAT.md 5.2: the checksum of the values.
std::uint64_t content_checksum(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  std::vector<std::uint64_t> strips;
  for (std::uint64_t b = 0; shape.cols != 0 && b < shape.batch; ++b) {
    for (std::uint64_t n = 0; n < shape.rows; n += 16) {
      const std::uint64_t rows = std::min<std::uint64_t>(16, shape.rows - n);
      strips.push_back(hash(values.data() + (b * shape.rows + n) * shape.cols, rows * shape.cols * 2));
    }
  }
  return hash(strips.data(), strips.size() * 8);
}

/// FORMAT.md 5: checksums go in last.
void seal(Bytes& blob, std::uint64_t content) {
  std::vector<std::uint64_t> chunks;
  for (std::size_t at = kHeaderBytes; at < blob.size(); at += std::size_t{1} << 20) {
    chunks.push_back(hash(blob.data() + at, std::min(std::size_t{1} << 20, blob.size() - at)));
  }
  write(blob, offsetof(Header, content_checksum), content);
  write(blob, offsetof(Header, payload_checksum), hash(chunks.data(), chunks.size() * 8));
  write(blob, offsetof(Header, header_checksum), hash(blob.data(), offsetof(Header, header_checksum)));
}

Header common_header(const MatrixShape& shape) {
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof h.magic);
  h.version_major = kVersionMajor;
  h.version_minor = kVersionMinor;
  h.header_bytes = kHeaderBytes;
  h.dtype = kDtypeBf16;
  h.batch = shape.batch;
  h.rows = shape.rows;
  h.cols = shape.cols;
  return h;
}

Bytes encode_raw(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  Bytes blob(static_cast<std::size_t>(raw_blob_bytes(values.size())));
  Header h = common_header(shape);
  h.blob_bytes = blob.size();
  write(blob, 0, h);
  if (!values.empty()) std::memcpy(blob.data() + kHeaderBytes, values.data(), values.size_bytes());
  seal(blob, content_checksum(values, shape));
  return blob;
}

bool pays(std::uint64_t tiled_bytes, std::uint64_t raw_bytes) { return tiled_bytes <= raw_bytes - raw_bytes / 32; }

}  // namespace

Bytes reference_encode(std::span<const std::uint16_t> values, const MatrixShape& shape) {
  const std::uint64_t raw_bytes = raw_blob_bytes(values.size());
  if (values.empty() || !pays(tiled_geometry(shape.batch, shape.rows, shape.cols, 1).blob_bytes(0), raw_bytes)) {
    return encode_raw(values, shape);
  }
  const std::uint64_t rows = shape.batch * shape.rows;
  const auto row_counts = [&](std::uint64_t row) {
    std::array<std::uint64_t, 256> counts{};
    for (std::uint64_t k = 0; k < shape.cols; ++k) ++counts[exponent_of(values[row * shape.cols + k])];
    return counts;
  };

  // 6.1, 6.2: palettes and the dictionary. Rows of padding vote with the palette of their strip's first row.
  std::vector<Exponents> row_choice(rows);
  std::map<Exponents, std::uint64_t> uses;
  for (std::uint64_t row = 0; row < rows; ++row) {
    row_choice[row] = choose_palette(row_counts(row));
    const std::uint64_t row_in_matrix = row % shape.rows;
    const bool last_strip = row_in_matrix / 16 == (shape.rows - 1) / 16;
    ++uses[row_choice[row]];
    if (row_in_matrix % 16 == 0 && last_strip) uses[row_choice[row]] += 16 - (shape.rows - row_in_matrix);
  }
  std::vector<std::pair<Exponents, std::uint64_t>> ranked(uses.begin(), uses.end());
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return std::tuple(~a.second, a.first) < std::tuple(~b.second, b.first);
  });
  ranked.resize(std::min<std::size_t>(ranked.size(), 256));
  std::vector<Exponents> dictionary;
  for (const auto& [palette, count] : ranked) dictionary.push_back(palette);
  std::sort(dictionary.begin(), dictionary.end());

  const TiledGeometry g =
      tiled_geometry(shape.batch, shape.rows, shape.cols, static_cast<std::uint32_t>(dictionary.size()));
  const auto padded_row = [&](std::uint64_t row) { return row / shape.rows * g.strips * 16 + row % shape.rows; };
  std::vector<std::uint8_t> row_palettes(g.padded_rows);
  std::array<std::uint64_t, 256> outside{};
  for (std::uint64_t row = 0; row < rows; ++row) {
    const auto counts = row_counts(row);
    const auto covered = [&](const Exponents& palette) {
      std::uint64_t sum = 0;
      for (const std::uint8_t e : palette) sum += counts[e];
      return sum;
    };
    auto best = std::find(dictionary.begin(), dictionary.end(), row_choice[row]);
    if (best == dictionary.end()) {
      best = std::max_element(dictionary.begin(), dictionary.end(),
                              [&](const Exponents& a, const Exponents& b) { return covered(a) < covered(b); });
    }
    row_palettes[padded_row(row)] = static_cast<std::uint8_t>(best - dictionary.begin());
    for (std::size_t e = 0; e < 256; ++e) {
      if (!contains(*best, static_cast<std::uint8_t>(e))) outside[e] += counts[e];
    }
  }

  // Rows of padding have the palette of their strip's first row.
  for (std::uint64_t row = 0; row < g.padded_rows; ++row) {
    if (row % (g.strips * 16) >= shape.rows) row_palettes[row] = row_palettes[row / 16 * 16];
  }

  // 6.3: the exponents that entries can hold.
  std::uint64_t best_covered = 0;
  std::uint8_t exception_base = 0;
  for (std::uint32_t base = 0; base <= 193; ++base) {
    std::uint64_t covered = 0;
    for (std::uint32_t e = base + 1; e <= base + 62; ++e) covered += outside[e];
    if (covered > best_covered) {
      best_covered = covered;
      exception_base = static_cast<std::uint8_t>(base);
    }
  }

  // 3, 4: tiles and exceptions.
  Bytes tiles(g.tiles * kTileBytes);
  std::vector<std::uint16_t> units;
  std::vector<std::uint64_t> starts;
  for (std::uint64_t tile = 0; tile < g.tiles; ++tile) {
    starts.push_back(units.size());
    const std::uint64_t strip = tile / g.tiles_per_strip;
    const std::uint64_t matrix = strip / g.strips, row0 = strip % g.strips * 16, col0 = tile % g.tiles_per_strip * 64;
    std::byte* out = tiles.data() + tile * kTileBytes;
    std::vector<std::uint16_t> list;
    std::array<std::uint8_t, 1024> exponents;
    std::array<std::array<std::uint8_t, 32>, 32> codes{};  // [lane][index]
    for (std::uint32_t p = 0; p < 1024; ++p) {
      const std::uint32_t r = position_row(p), c = position_col(p);
      const Exponents& palette = dictionary[row_palettes[strip * 16 + r]];
      const bool inside = row0 + r < shape.rows && col0 + c < shape.cols;
      const std::uint16_t value = inside ? values[(matrix * shape.rows + row0 + r) * shape.cols + col0 + c]
                                         : static_cast<std::uint16_t>(palette[0] << 7);
      const std::uint8_t exponent = exponents[p] = exponent_of(value);
      out[p] = std::byte{sign_mantissa_of(value)};
      if (contains(palette, exponent)) {
        codes[position_lane(p)][position_index(p)] =
            static_cast<std::uint8_t>(std::find(palette.begin(), palette.end(), exponent) - palette.begin());
      } else if (exponent_fits_entry(exponent, exception_base)) {
        list.push_back(make_entry(p, exponent, exception_base));
      } else {
        list.push_back(make_extended_entry(p));
        list.push_back(exponent);
      }
    }
    for (std::uint32_t lane = 0; lane < 32; ++lane) {
      const auto words = pack_codes(codes[lane]);
      std::memcpy(out + 1024 + 8 * lane, &words[0], 4);
      std::memcpy(out + 1024 + 8 * lane + 4, &words[1], 4);
      std::memcpy(out + 1280 + 4 * lane, &words[2], 4);
    }
    if (list.size() >= 512) {
      list.clear();
      for (std::uint32_t p = 0; p < 1024; p += 2) {
        list.push_back(
            static_cast<std::uint16_t>(rotate_exponent(exponents[p]) | rotate_exponent(exponents[p + 1]) << 8));
      }
    }
    units.insert(units.end(), list.begin(), list.end());
  }
  starts.push_back(units.size());

  // 6.4: do tiles pay?
  if (!pays(g.blob_bytes(units.size()), raw_bytes) || units.size() > UINT32_MAX) return encode_raw(values, shape);

  // 1: the sections.
  Bytes blob(g.blob_bytes(units.size()));
  Header h = common_header(shape);
  h.blob_bytes = blob.size();
  h.layout = 1;
  h.exception_base = exception_base;
  h.palette_count = static_cast<std::uint32_t>(dictionary.size());
  h.exception_units = units.size();
  h.palettes_offset = g.palettes_offset;
  h.row_palettes_offset = g.row_palettes_offset;
  h.segment_starts_offset = g.segment_starts_offset;
  h.tile_starts_offset = g.tile_starts_offset;
  h.tiles_offset = g.tiles_offset;
  h.exceptions_offset = g.exceptions_offset;
  write(blob, 0, h);
  for (std::size_t i = 0; i < dictionary.size(); ++i) {
    for (std::size_t j = 0; j < 8; ++j) write(blob, g.palettes_offset + 8 * i + j, rotate_exponent(dictionary[i][j]));
  }
  for (std::size_t row = 0; row < row_palettes.size(); ++row) {
    write(blob, g.row_palettes_offset + row, row_palettes[row]);
  }
  for (std::uint64_t tile = 0; tile <= g.tiles; ++tile) {
    const std::uint64_t segment = tile / 64;
    write(blob, g.segment_starts_offset + 4 * segment, static_cast<std::uint32_t>(starts[segment * 64]));
    write(blob, g.tile_starts_offset + 2 * tile, static_cast<std::uint16_t>(starts[tile] - starts[segment * 64]));
  }
  std::memcpy(blob.data() + g.tiles_offset, tiles.data(), tiles.size());
  for (std::size_t i = 0; i < units.size(); ++i) write(blob, g.exceptions_offset + 2 * i, units[i]);
  seal(blob, content_checksum(values, shape));
  return blob;
}

std::vector<std::uint16_t> reference_decode(std::span<const std::byte> blob) {
  const auto h = read<Header>(blob, 0);
  std::vector<std::uint16_t> values(h.batch * h.rows * h.cols);
  if (h.layout == 0) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = read<std::uint16_t>(blob, kHeaderBytes + 2 * i);
    return values;
  }
  const TiledGeometry g = tiled_geometry(h.batch, h.rows, h.cols, h.palette_count);
  const auto exceptions_begin = [&](std::uint64_t tile) {
    return std::uint64_t{read<std::uint32_t>(blob, h.segment_starts_offset + 4 * (tile / 64))} +
           read<std::uint16_t>(blob, h.tile_starts_offset + 2 * tile);
  };
  for (std::uint64_t i = 0; i < values.size(); ++i) {
    // 3: where the value lies.
    const std::uint64_t col = i % h.cols, row = i / h.cols % h.rows, matrix = i / h.cols / h.rows;
    const std::uint64_t strip = matrix * g.strips + row / 16;
    const std::uint64_t tile = strip * g.tiles_per_strip + col / 64;
    const std::uint32_t p = position_of(row % 16, col % 64);
    const std::uint64_t at = h.tiles_offset + tile * kTileBytes;
    const auto sign_mantissa = read<std::uint8_t>(blob, at + p);
    // 3: its exponent by code and palette.
    const std::uint32_t lane = position_lane(p);
    const std::array<std::uint32_t, 3> words = {read<std::uint32_t>(blob, at + 1024 + 8 * lane),
                                                read<std::uint32_t>(blob, at + 1024 + 8 * lane + 4),
                                                read<std::uint32_t>(blob, at + 1280 + 4 * lane)};
    const auto palette = read<std::uint8_t>(blob, h.row_palettes_offset + strip * 16 + row % 16);
    auto rotated = read<std::uint8_t>(blob, h.palettes_offset + 8 * palette + unpack_code(words, position_index(p)));
    // 4: unless the tile has an exponent plane, or an entry for this position; the last one counts.
    const std::uint64_t begin = exceptions_begin(tile), count = exceptions_begin(tile + 1) - begin;
    if (count == 512) {
      rotated = read<std::uint8_t>(blob, h.exceptions_offset + 2 * begin + p);
    } else {
      for (std::uint64_t u = begin; u < begin + count; ++u) {
        const auto entry = read<std::uint16_t>(blob, h.exceptions_offset + 2 * u);
        std::uint8_t exponent = entry_exponent(entry, h.exception_base);
        if (entry_is_extended(entry)) {
          if (++u == begin + count) break;
          exponent = static_cast<std::uint8_t>(read<std::uint16_t>(blob, h.exceptions_offset + 2 * u));
        }
        if (entry_position(entry) == p) rotated = rotate_exponent(exponent);
      }
    }
    values[i] = join_bf16(sign_mantissa, rotated);
  }
  return values;
}

}  // namespace unweight::codec
