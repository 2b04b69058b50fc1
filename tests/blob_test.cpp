// SPDX-License-Identifier: Apache-2.0
//
// Blobs as files meet them: sizes, slices, streams that no encoder of ours made, corrupt bytes, golden files.
#include "support/tensors.hpp"
#include <codec/checksum.hpp>
#include <codec/decode.hpp>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/reference.hpp>
#include <cstdlib>
#include <filesystem>
#include <format/bf16.hpp>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>

namespace unweight {
namespace {

using format::Header;
using test::Filling;
using test::make_tensor;

std::vector<std::byte> encoded(const MatrixShape& shape, Filling filling, std::uint64_t seed = 1) {
  return encode(make_tensor(shape, filling, seed), shape).value();
}

template <class T>
void poke(std::vector<std::byte>& blob, std::size_t offset, T value) {
  format::store(blob.data() + offset, value);
}

/// Makes the checksums right again after a change to the header or the payload.
void reseal(std::vector<std::byte>& blob) {
  poke(blob, offsetof(Header, payload_checksum),
       codec::payload_checksum(std::span<const std::byte>(blob).subspan(format::kHeaderBytes), 1));
  poke(blob, offsetof(Header, header_checksum), codec::header_checksum(format::read_header(blob).value()));
}

Result<std::vector<std::uint16_t>> decoded(std::span<const std::byte> blob) {
  const auto info = inspect(blob);
  if (!info) return tl::unexpected(info.error());
  std::vector<std::uint16_t> values(static_cast<std::size_t>(info->value_bytes / 2));
  if (auto ok = decode(blob, values); !ok) return tl::unexpected(ok.error());
  return values;
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

TEST(BlobSize, TrainedWeightsTakeAtMost11Point42Bits) {
  const auto info = inspect(encoded({1, 2048, 2048}, Filling::kTrained)).value();
  EXPECT_EQ(info.layout, BlobLayout::kTiled);
  EXPECT_LE(info.bits_per_weight, 11.42);
  EXPECT_GE(info.bits_per_weight, 11.0);
}

struct SizeCase {
  Filling filling;
  double most_bits;
};

TEST(BlobSize, ClusteredOutliersDoNotBlowUp) {
  const MatrixShape shape{1, 704, 1024};
  for (const SizeCase& c : {SizeCase{Filling::kEscapes1p5, 11.6}, SizeCase{Filling::kEscapes15, 13.8},
                            SizeCase{Filling::kOutlierRows, 14.0}, SizeCase{Filling::kOutlierColumns, 11.8},
                            SizeCase{Filling::kRareSpecials, 11.4}, SizeCase{Filling::kConstant, 11.1},
                            SizeCase{Filling::kZeros, 11.1}, SizeCase{Filling::kSparse, 11.5}}) {
    const auto info = inspect(encoded(shape, c.filling)).value();
    EXPECT_EQ(info.layout, BlobLayout::kTiled) << test::name_of(c.filling);
    EXPECT_LE(info.bits_per_weight, c.most_bits) << test::name_of(c.filling);
  }
}

TEST(BlobSize, StripsOfNoiseTakeTheirExponentPlane) {
  const MatrixShape shape{1, 512, 512};
  auto values = make_tensor(shape, Filling::kTrained, 1);
  const auto noise = make_tensor(shape, Filling::kUniformBits, 1);
  std::copy_n(noise.begin() + 64 * 512, 32 * 512, values.begin() + 64 * 512);
  const auto blob = encode(values, shape).value();
  const auto info = inspect(blob).value();
  EXPECT_EQ(info.escaped_tiles, 16U);
  EXPECT_LE(info.bits_per_weight, 11.25 + 8.0 * 32 / 512 + 0.2);
  EXPECT_EQ(decoded(blob).value(), values);
}

TEST(BlobSize, NeverAboveTheBound) {
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : {MatrixShape{1, 1, 1}, MatrixShape{1, 16, 64}, MatrixShape{1, 512, 512},
                                     MatrixShape{1, 1, 100000}, MatrixShape{1, 100000, 1}, MatrixShape{7, 5, 9}}) {
      const auto blob = encoded(shape, filling);
      const std::uint64_t raw = 2 * shape.batch * shape.rows * shape.cols;
      EXPECT_LE(blob.size(), encode_bound(shape).value());
      EXPECT_LE(blob.size(), raw + 256 + 127) << test::name_of(filling);
      if (raw >= 512 * 1024) {
        EXPECT_LE(blob.size(), raw + raw / 1000) << test::name_of(filling);
      }
    }
  }
}

// What the canonical encoder makes of fixed inputs, to the byte. A change here is a change of the format's encoder: it
// wants an entry in CHANGELOG.md.
TEST(BlobSize, RegressionTable) {
  struct Row {
    std::string filling;
    MatrixShape shape;
    std::uint64_t bytes, checksum;
  };
  const std::vector<Row> rows = {
#include "data/size_table.inc"
  };
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : {MatrixShape{1, 256, 384}, MatrixShape{2, 33, 130}}) {
      const auto blob = encoded(shape, filling, 42);
      const std::string name = test::name_of(filling);
      const std::uint64_t checksum = codec::xxh3(blob);
      if (std::getenv("UNWEIGHT_PRINT_SIZES") != nullptr) {
        std::printf("    {\"%s\", {%llu, %llu, %llu}, %zu, 0x%016llx},\n", name.c_str(),
                    static_cast<unsigned long long>(shape.batch), static_cast<unsigned long long>(shape.rows),
                    static_cast<unsigned long long>(shape.cols), blob.size(),
                    static_cast<unsigned long long>(checksum));
        continue;
      }
      const auto row =
          std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.shape == shape && r.filling == name; });
      ASSERT_NE(row, rows.end()) << name;
      EXPECT_EQ(blob.size(), row->bytes) << name;
      EXPECT_EQ(checksum, row->checksum) << name;
    }
  }
}

// ---- slices ---------------------------------------------------------------------------------------------------------

std::vector<std::uint16_t> cut(const std::vector<std::uint16_t>& values, const MatrixShape& shape,
                               const SliceRange& r) {
  std::vector<std::uint16_t> out;
  for (std::uint64_t b = r.batch_begin; b < r.batch_end; ++b) {
    for (std::uint64_t n = r.row_begin; n < r.row_end; ++n) {
      const auto row = values.begin() + static_cast<std::ptrdiff_t>((b * shape.rows + n) * shape.cols);
      out.insert(out.end(), row + static_cast<std::ptrdiff_t>(r.col_begin),
                 row + static_cast<std::ptrdiff_t>(r.col_end));
    }
  }
  return out;
}

TEST(Slice, GivesThePartOfTheTensor) {
  test::Random random(4);
  for (const MatrixShape& shape : {MatrixShape{1, 200, 300}, MatrixShape{4, 48, 128}, MatrixShape{3, 37, 1000}}) {
    for (const Filling filling :
         {Filling::kTrained, Filling::kRareSpecials, Filling::kOutlierColumns, Filling::kUniformBits}) {
      const auto values = make_tensor(shape, filling, 9);
      const auto blob = encode(values, shape).value();
      for (int i = 0; i < 40; ++i) {
        const auto pick = [&](std::uint64_t extent, std::uint64_t step) {
          const std::uint64_t steps = format::ceil_div(extent, step), begin = random.below(steps);
          const std::uint64_t end = begin + 1 + random.below(steps - begin);
          return std::pair(begin * step, std::min(extent, end * step));
        };
        SliceRange r;
        std::tie(r.batch_begin, r.batch_end) = pick(shape.batch, 1);
        std::tie(r.row_begin, r.row_end) = pick(shape.rows, kSliceRows);
        std::tie(r.col_begin, r.col_end) = pick(shape.cols, kSliceCols);
        const auto part = slice(blob, r);
        ASSERT_TRUE(part) << part.error().message;
        EXPECT_LE(part->size(), blob.size());
        const auto info = verify_blob(*part);
        ASSERT_TRUE(info) << info.error().message;
        EXPECT_EQ(info->shape,
                  (MatrixShape{r.batch_end - r.batch_begin, r.row_end - r.row_begin, r.col_end - r.col_begin}));
        ASSERT_EQ(decoded(*part).value(), cut(values, shape, r));
        ASSERT_EQ(codec::reference_decode(*part), cut(values, shape, r));
      }
    }
  }
}

TEST(Slice, TheWholeIsTheSameBlob) {
  const auto blob = encoded({2, 90, 1000}, Filling::kTrained);
  ASSERT_EQ(inspect(blob)->layout, BlobLayout::kTiled);
  EXPECT_EQ(slice(blob, {0, 2, 0, 90, 0, 1000}).value(), blob);
}

TEST(Slice, RefusesRangesOffTheGrid) {
  const auto blob = encoded({2, 90, 1000}, Filling::kTrained);
  ASSERT_EQ(inspect(blob)->layout, BlobLayout::kTiled);
  for (const SliceRange& r :
       {SliceRange{0, 2, 8, 90, 0, 1000}, SliceRange{0, 2, 0, 40, 0, 1000}, SliceRange{0, 2, 0, 90, 32, 1000},
        SliceRange{0, 2, 0, 90, 0, 100}, SliceRange{0, 3, 0, 90, 0, 1000}, SliceRange{0, 2, 0, 91, 0, 1000},
        SliceRange{1, 1, 0, 90, 0, 1000}, SliceRange{0, 2, 16, 16, 0, 1000}, SliceRange{2, 1, 0, 90, 0, 1000}}) {
    const auto part = slice(blob, r);
    ASSERT_FALSE(part);
    EXPECT_EQ(part.error().code, ErrorCode::kInvalidArgument) << part.error().message;
  }
}

// ---- valid streams that the encoder would not make
// --------------------------------------------------------------------

/// A random valid tiled blob: any palettes, any codes, lists of any length, exponent planes.
std::vector<std::byte> random_blob(test::Random& random) {
  const std::uint64_t batch = 1 + random.below(3), rows = 1 + random.below(40), cols = 1 + random.below(400);
  const auto palette_count = static_cast<std::uint32_t>(1 + random.below(256));
  const auto g = format::tiled_geometry(batch, rows, cols, palette_count);
  std::vector<std::vector<std::uint16_t>> units(static_cast<std::size_t>(g.tiles));
  std::uint64_t total = 0;
  for (auto& tile : units) {
    const std::uint64_t kind = random.below(8);
    if (kind == 0) {
      for (std::uint32_t u = 0; u < format::kEscapedTileUnits; ++u) {
        tile.push_back(static_cast<std::uint16_t>(random.next()));
      }
    } else {
      const std::uint64_t chance = kind == 1 ? 512 : kind == 2 ? 0 : 15;
      for (std::uint32_t p = 0; p < format::kTileValues && tile.size() < 510; ++p) {
        if (random.below(1024) >= chance) continue;
        tile.push_back(static_cast<std::uint16_t>(p | random.below(64) << 10));
        if (format::entry_is_extended(tile.back())) tile.push_back(static_cast<std::uint16_t>(random.below(256)));
      }
    }
    total += tile.size();
  }
  std::vector<std::byte> blob(static_cast<std::size_t>(g.blob_bytes(total)));
  for (std::uint64_t i = 0; i < g.tiles * format::kTileBytes; ++i) {
    blob[static_cast<std::size_t>(g.tiles_offset + i)] = static_cast<std::byte>(random.next());
  }
  codec::ExceptionTableWriter tables(g, blob);
  std::byte* at = blob.data() + g.exceptions_offset;
  for (const auto& tile : units) {
    tables.add(static_cast<std::uint32_t>(tile.size()));
    if (!tile.empty()) std::memcpy(at, tile.data(), tile.size() * 2);
    at += tile.size() * 2;
  }
  tables.finish();
  for (std::uint64_t row = 0; row < g.padded_rows; ++row) {
    blob[static_cast<std::size_t>(g.row_palettes_offset + row)] = static_cast<std::byte>(random.below(palette_count));
  }
  for (std::uint32_t p = 0; p < palette_count; ++p) {
    std::uint32_t exponent = static_cast<std::uint32_t>(random.below(256 - 8 * 16));
    for (std::uint32_t j = 0; j < 8; ++j) {
      blob[static_cast<std::size_t>(g.palettes_offset + 8 * p + j)] =
          std::byte{format::rotate_exponent(static_cast<std::uint8_t>(exponent))};
      exponent += static_cast<std::uint32_t>(1 + random.below(16));
    }
  }
  Header h{};
  h.layout = 1;
  h.exception_base = static_cast<std::uint8_t>(random.below(194));
  h.palette_count = palette_count;
  h.exception_units = total;
  codec::finish_header(h, {batch, rows, cols}, g, blob.size(), blob);
  const auto view = format::BlobView::validate(h, blob);
  EXPECT_TRUE(view) << view.error().message;
  codec::seal_blob(blob, codec::content_checksum(codec::scalar_tile_kernels(), *view), 1);
  return blob;
}

TEST(BlobStreams, EveryValidStreamDecodesAsTheReferenceSays) {
  test::Random random(77);
  for (int i = 0; i < 60; ++i) {
    const auto blob = random_blob(random);
    const auto expected = codec::reference_decode(blob);
    const auto view = codec::open_blob(blob).value();
    for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
      std::vector<std::uint16_t> values(expected.size());
      ASSERT_TRUE(codec::decode_with(*kernels, view, values, {}));
      ASSERT_EQ(values, expected) << kernels->name << " stream " << i;
    }
  }
}

// ---- corrupt bytes --------------------------------------------------------------------------------------------------

TEST(BlobHostile, EveryPrefixFailsCleanly) {
  for (const Filling filling : {Filling::kRareSpecials, Filling::kUniformBits}) {
    const auto blob = encoded({1, 32, 128}, filling);
    for (std::size_t size = 0; size < blob.size(); ++size) {
      // A copy of its own, so that a sanitizer sees a read beyond the end.
      const std::vector<std::byte> prefix(blob.begin(), blob.begin() + static_cast<std::ptrdiff_t>(size));
      const auto result = decoded(prefix);
      ASSERT_FALSE(result) << size;
      ASSERT_EQ(result.error().code, ErrorCode::kTruncated) << result.error().message;
    }
    auto longer = blob;
    longer.resize(blob.size() + 1000, std::byte{0xff});
    EXPECT_TRUE(decoded(longer));
  }
}

TEST(BlobHostile, EveryFlippedBitIsHarmlessOrReported) {
  for (const Filling filling : {Filling::kRareSpecials, Filling::kUniformBits}) {
    const MatrixShape shape{1, 30, 120};
    const auto values = make_tensor(shape, filling, 1);
    auto blob = encode(values, shape).value();
    std::size_t reported = 0;
    for (std::size_t bit = 0; bit < blob.size() * 8; ++bit) {
      blob[bit / 8] ^= std::byte{1} << bit % 8;
      if (const auto result = decoded(blob)) {
        ASSERT_EQ(*result, values) << "bit " << bit;
      } else {
        ++reported;
        ASSERT_FALSE(result.error().message.empty());
      }
      ASSERT_FALSE(verify_blob(blob)) << "bit " << bit;
      blob[bit / 8] ^= std::byte{1} << bit % 8;
    }
    EXPECT_GT(reported, blob.size() * 4);
  }
}

// The same with the checksums made right again: tables and lengths alone must keep every access inside.
TEST(BlobHostile, EveryFlippedBitWithRightChecksumsStaysInside) {
  const auto original = encoded({1, 32, 128}, Filling::kRareSpecials);
  ASSERT_EQ(inspect(original)->layout, BlobLayout::kTiled);
  for (std::size_t bit = 0; bit < original.size() * 8; ++bit) {
    auto blob = original;
    blob[bit / 8] ^= std::byte{1} << bit % 8;
    if (!format::read_header(blob)) continue;
    reseal(blob);
    const auto view = codec::open_blob(blob);
    if (!view) continue;
    std::vector<std::uint16_t> values(static_cast<std::size_t>(view->values()));
    ASSERT_TRUE(decode(blob, values, {.threads = 1, .verify_checksums = false}));
    ASSERT_EQ(codec::reference_decode(blob), values) << "bit " << bit;
  }
}

struct Damage {
  const char* what;
  ErrorCode code;
  std::function<void(std::vector<std::byte>&, const Header&)> apply;
  bool resealed = true;
};

TEST(BlobHostile, OneErrorForEachKindOfDamage) {
  const auto tiled = encoded({1, 128, 1024}, Filling::kTrained);
  const auto raw = encoded({1, 16, 16}, Filling::kUniformBits);
  ASSERT_EQ(inspect(tiled)->layout, BlobLayout::kTiled);
  ASSERT_EQ(inspect(raw)->layout, BlobLayout::kRaw);
  using B = std::vector<std::byte>;
  const std::vector<Damage> damages = {
      {"magic", ErrorCode::kBadMagic, [](B& b, const Header&) { b[3] = std::byte{'x'}; }, false},
      {"major version", ErrorCode::kUnsupportedVersion,
       [](B& b, const Header&) { poke(b, offsetof(Header, version_major), std::uint16_t{2}); }, false},
      {"header checksum", ErrorCode::kChecksumMismatch, [](B& b, const Header&) { b[40] ^= std::byte{1}; }, false},
      {"payload", ErrorCode::kChecksumMismatch, [](B& b, const Header&) { b[300] ^= std::byte{1}; }, false},
      {"content checksum", ErrorCode::kChecksumMismatch,
       [](B& b, const Header&) { b[offsetof(Header, content_checksum)] ^= std::byte{1}; }},
      {"header bytes", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, header_bytes), std::uint32_t{128}); }},
      {"dtype", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[offsetof(Header, dtype)] = std::byte{2}; }},
      {"layout", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[offsetof(Header, layout)] = std::byte{2}; }},
      {"reserved", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[130] = std::byte{1}; }},
      {"2^64 rows", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, rows), ~std::uint64_t{0}); }},
      {"2^47 rows", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, rows), std::uint64_t{1} << 47); }},
      {"no rows", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, rows), std::uint64_t{0}); }},
      {"offset", ErrorCode::kCorruptHeader,
       [](B& b, const Header& h) { poke(b, offsetof(Header, palettes_offset), h.palettes_offset + 128); }},
      {"blob bytes", ErrorCode::kCorruptHeader,
       [](B& b, const Header& h) { poke(b, offsetof(Header, blob_bytes), h.blob_bytes - 128); }},
  };
  for (const auto& original : {tiled, raw}) {
    for (const Damage& damage : damages) {
      auto blob = original;
      damage.apply(blob, format::read_header(original).value());
      if (damage.resealed) reseal(blob);
      const bool raw_and_empty = &original != &tiled && std::string(damage.what) == "no rows";
      const auto result = verify_blob(blob);
      ASSERT_FALSE(result) << damage.what;
      EXPECT_TRUE(result.error().code == damage.code || raw_and_empty) << damage.what << ": " << result.error().message;
    }
  }
  const std::vector<Damage> tiled_damages = {
      {"palette count 0", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, palette_count), std::uint32_t{0}); }},
      {"palette count 257", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, palette_count), std::uint32_t{257}); }},
      {"exception base", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { b[offsetof(Header, exception_base)] = std::byte{194}; }},
      {"exception units", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, exception_units), std::uint64_t{1} << 40); }},
      {"palette order", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { b[h.palettes_offset + 1] = b[h.palettes_offset]; }},
      {"row palette", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { b[h.row_palettes_offset + 17] = static_cast<std::byte>(h.palette_count); }},
      {"first start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.tile_starts_offset, std::uint16_t{1}); }},
      {"falling start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.tile_starts_offset + 2 * 5, std::uint16_t{0}); }},
      {"huge tile", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.tile_starts_offset + 2 * 5, std::uint16_t{65535}); }},
      {"segment start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.segment_starts_offset + 4, 0xffffffffU); }},
      {"end of stream", ErrorCode::kCorruptPayload, [](B& b, const Header& h) {
         // One exception fewer than announced, in the same number of aligned bytes.
         const auto end = h.tile_starts_offset + 2 * format::tiled_geometry(1, 128, 1024, 1).tiles;
         poke(b, end, static_cast<std::uint16_t>(format::load<std::uint16_t>(b.data() + end) - 1));
       }}};
  for (const Damage& damage : tiled_damages) {
    auto blob = tiled;
    damage.apply(blob, format::read_header(tiled).value());
    reseal(blob);
    const auto result = inspect(blob);
    ASSERT_FALSE(result) << damage.what;
    EXPECT_EQ(result.error().code, damage.code) << damage.what << ": " << result.error().message;
  }
}

// ---- golden files ---------------------------------------------------------------------------------------------------

// Blobs that some released version wrote: they must decode to the same values for ever. New ones are added with
// UNWEIGHT_UPDATE_GOLDEN=1; existing files are never rewritten.
TEST(BlobGolden, DecodeForEver) {
  const std::filesystem::path folder = std::filesystem::path(UNWEIGHT_TEST_DATA_DIR) / "golden" / "blob-v1.0";
  const MatrixShape shapes[] = {{1, 40, 100}, {2, 20, 64}};
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : shapes) {
      const auto values = make_tensor(shape, filling, 2026);
      const auto path = folder / (test::name_of(filling) + "_" + std::to_string(shape.batch) + "x" +
                                  std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + ".blob");
      if (std::getenv("UNWEIGHT_UPDATE_GOLDEN") != nullptr && !std::filesystem::exists(path)) {
        std::filesystem::create_directories(folder);
        const auto blob = encode(values, shape).value();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(blob.data()), static_cast<std::streamsize>(blob.size()));
      }
      std::ifstream file(path, std::ios::binary);
      ASSERT_TRUE(file) << path;
      std::vector<std::byte> blob(static_cast<std::size_t>(std::filesystem::file_size(path)));
      file.read(reinterpret_cast<char*>(blob.data()), static_cast<std::streamsize>(blob.size()));
      ASSERT_TRUE(file) << path;
      ASSERT_TRUE(verify_blob(blob)) << path;
      EXPECT_EQ(decoded(blob).value(), values) << path;
      EXPECT_EQ(codec::reference_decode(blob), values) << path;
    }
  }
}

}  // namespace
}  // namespace unweight
