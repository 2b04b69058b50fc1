// SPDX-License-Identifier: Apache-2.0
//
// Distribution blobs as files meet them: sizes, streams that no encoder of ours made, corrupt bytes, golden files.
#include "support/tensors.hpp"
#include <bit>
#include <codec/checksum.hpp>
#include <codec/distribution_decode.hpp>
#include <codec/distribution_model.hpp>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <codec/open.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>

namespace unweight {
namespace {

namespace rans = codec::distribution;
using format::distribution::Header;
using test::Filling;
using test::make_tensor;
using Bytes = std::vector<std::byte>;

Bytes encoded(const MatrixShape& shape, Filling filling, std::uint64_t seed = 1) {
  return distribution::encode(make_tensor(shape, filling, seed), shape).value();
}

template <class T>
void poke(Bytes& blob, std::size_t offset, T value) {
  format::store(blob.data() + offset, value);
}

template <class T>
T peek(const Bytes& blob, std::size_t offset) {
  return format::load<T>(blob.data() + offset);
}

Header header_of(const Bytes& blob) { return format::distribution::read_header(blob).value(); }

/// Makes the checksums right again after a change to the header or the payload.
void reseal(Bytes& blob) {
  poke(blob, offsetof(Header, payload_checksum),
       codec::payload_checksum(std::span<const std::byte>(blob).subspan(format::kHeaderBytes), 1));
  poke(blob, offsetof(Header, header_checksum), rans::header_checksum(header_of(blob)));
}

Result<std::vector<std::uint16_t>> decoded(std::span<const std::byte> blob) {
  const auto info = distribution::inspect(blob);
  if (!info) return tl::unexpected(info.error());
  std::vector<std::uint16_t> values(static_cast<std::size_t>(info->value_bytes / 2));
  if (auto ok = distribution::decode(blob, values); !ok) return tl::unexpected(ok.error());
  return values;
}

/// All implementations, with the content's checksum left out, come to what the reference says: values or corruption.
void expect_as_reference(const Bytes& blob, const format::distribution::View& view, const std::string& what) {
  const auto expected = rans::reference_decode(blob);
  for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(view.values()));
    const auto ok = rans::decode_with(*kernels, view, values, {.threads = 1, .verify_checksums = false});
    ASSERT_EQ(ok.has_value(), expected.has_value()) << kernels->name << " " << what;
    if (ok) {
      ASSERT_TRUE(values == *expected) << kernels->name << " " << what;
    } else {
      ASSERT_EQ(ok.error().code, ErrorCode::kCorruptPayload) << ok.error().message;
    }
  }
}

// ---- sizes ----------------------------------------------------------------------------------------------------------

TEST(DistributionSize, TrainedWeightsTakeAtMost10Point52Bits) {
  const auto info = distribution::inspect(encoded({1, 2048, 2048}, Filling::kTrained)).value();
  EXPECT_EQ(info.layout, distribution::Layout::kCoded);
  EXPECT_LE(info.bits_per_weight, 10.52);
  EXPECT_GE(info.bits_per_weight, 10.0);
}

struct SizeCase {
  Filling filling;
  double most_bits;
};

TEST(DistributionSize, UnusualTensorsDoNotBlowUp) {
  const MatrixShape shape{1, 704, 1024};
  for (const SizeCase& c :
       {SizeCase{Filling::kEscapes1p5, 10.9}, SizeCase{Filling::kEscapes15, 12.6},
        SizeCase{Filling::kOutlierRows, 13.0}, SizeCase{Filling::kOutlierColumns, 11.5},
        SizeCase{Filling::kRareSpecials, 10.7}, SizeCase{Filling::kConstant, 6.1}, SizeCase{Filling::kZeros, 6.1},
        SizeCase{Filling::kSparse, 9.0}, SizeCase{Filling::kTwoSymbols, 7.6}}) {
    const auto info = distribution::inspect(encoded(shape, c.filling)).value();
    EXPECT_EQ(info.layout, distribution::Layout::kCoded) << test::name_of(c.filling);
    EXPECT_LE(info.bits_per_weight, c.most_bits) << test::name_of(c.filling);
  }
}

TEST(DistributionSize, NeverAboveTheBound) {
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : {MatrixShape{1, 1, 1}, MatrixShape{1, 16, 64}, MatrixShape{1, 512, 512},
                                     MatrixShape{1, 1, 100000}, MatrixShape{1, 100000, 1}, MatrixShape{7, 5, 9}}) {
      EXPECT_LE(encoded(shape, filling).size(), encode_bound(shape).value()) << test::name_of(filling);
    }
  }
}

// What the canonical encoder makes of fixed inputs, to the byte. A change here is a change of the format's encoder: it
// wants an entry in CHANGELOG.md.
TEST(DistributionSize, RegressionTable) {
  struct Row {
    std::string filling;
    MatrixShape shape;
    std::uint64_t bytes, checksum;
  };
  const std::vector<Row> rows = {
#include "data/distribution_size_table.inc"
  };
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : {MatrixShape{1, 256, 384}, MatrixShape{2, 33, 130}, MatrixShape{1, 260, 1100}}) {
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

// ---- valid streams that the encoder would not make ------------------------------------------------------------------

/// A random valid coded blob: any tables, any scales, any words, by decoding what happens to stand there. The decoder's
/// steps are undone by an encoder that knows nothing of values: ranks at random.
Bytes random_blob(test::Random& random) {
  using namespace format::distribution;
  const MatrixShape shape{1 + random.below(2), 1 + random.below(40), 1 + random.below(1400)};
  const Blocks g = cut_blocks(shape.batch, shape.rows, shape.cols);
  std::vector<rans::ClassModel> classes(1 + random.below(kMaxClasses));
  for (rans::ClassModel& model : classes) {
    model.window = static_cast<std::uint32_t>(random.below(kMaxWindow + 1));
    std::array<std::uint64_t, kRanks> counts{};
    std::array<bool, kRanks> wanted{};
    for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
      wanted[rank] = (rank < model.window && random.below(4) != 0) || (rank >= kZeroRank && random.below(3) != 0);
      if (wanted[rank]) counts[rank] = random.next() >> (30 + random.below(30));
    }
    if (std::none_of(wanted.begin(), wanted.end(), [](bool w) { return w; })) wanted[kEscapeRank] = true;
    model.frequencies = rans::normalize(counts, wanted);
  }
  std::vector<std::uint16_t> scales(1 + random.below(kMaxScales));
  for (std::uint16_t& scale : scales) {
    scale = static_cast<std::uint16_t>(random.below(classes.size()) << 10 | random.below(kPrefixes));
  }
  std::vector<std::uint8_t> row_scales(shape.batch * shape.rows);
  for (std::uint8_t& number : row_scales) number = static_cast<std::uint8_t>(random.below(scales.size()));

  std::vector<rans::EncodeTable> tables;
  for (const rans::ClassModel& model : classes) tables.push_back(rans::make_encode_table(model));
  Bytes stream;
  const auto append = [](Bytes& to, const void* from, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    to.insert(to.end(), bytes, bytes + size);
  };
  std::vector<std::uint32_t> starts;
  std::vector<std::uint16_t> escape_counts;
  for (std::uint64_t block = 0; block < g.count; ++block) {
    const BlockPlace place = place_block(g, shape.rows, shape.cols, block);
    const std::uint32_t row_steps = steps_per_row(place.cols);
    starts.push_back(static_cast<std::uint32_t>(stream.size() / 4));
    rans::States states;
    for (std::uint32_t& x : states) x = kFinalState | static_cast<std::uint32_t>(random.below(kFinalState));
    std::vector<std::uint16_t> words(place.steps() * kLanes + 8);
    std::uint16_t* first = words.data() + words.size();
    for (std::uint32_t row = place.rows; row-- > 0;) {
      const rans::EncodeTable& table = tables[scale_class(scales[row_scales[place.row + row]])];
      std::vector<std::uint8_t> ranks(row_steps * kLanes);
      for (std::uint8_t& rank : ranks) {
        do {
          rank = static_cast<std::uint8_t>(random.next());
        } while ((table.symbols[rank] & 0xffff) == 0);
      }
      first = rans::scalar_rans_kernels().encode_row(ranks.data(), row_steps, table, states, first);
    }
    for (std::uint32_t i = 0; i < suffix_plane_bytes(place.steps()); ++i) {
      stream.push_back(static_cast<std::byte>(random.next()));
    }
    std::uint32_t mask = 0;
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) mask |= (states[lane] >> 24 != 0 ? 1U : 0U) << lane;
    append(stream, &mask, 4);
    for (const std::uint32_t x : states) append(stream, &x, 2);
    for (const std::uint32_t x : states) stream.push_back(static_cast<std::byte>(x >> 16));
    for (const std::uint32_t x : states) {
      if (x >> 24 != 0) stream.push_back(static_cast<std::byte>(x >> 24));
    }
    stream.resize(format::align_up(stream.size(), 4));
    std::uint16_t escapes = 0;
    for (std::uint32_t row = 0; row < place.rows; ++row) {
      for (std::uint32_t col = 0; col < place.cols; ++col) {
        if (random.below(100) != 0) continue;
        const std::uint16_t entry[] = {static_cast<std::uint16_t>(row * g.block_cols + col),
                                       static_cast<std::uint16_t>(random.below(kPrefixes))};
        append(stream, entry, sizeof entry);
        ++escapes;
      }
    }
    escape_counts.push_back(escapes);
    append(stream, first, static_cast<std::size_t>(words.data() + words.size() - first) * 2);
    stream.resize(format::align_up(stream.size(), 4));
  }
  starts.push_back(static_cast<std::uint32_t>(stream.size() / 4));

  const std::vector<std::uint16_t> units = rans::table_units(classes);
  const Sections s = place_sections(g, row_scales.size(), static_cast<std::uint32_t>(scales.size()),
                                    static_cast<std::uint32_t>(units.size()));
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version_major = kVersionMajor;
  h.header_bytes = format::kHeaderBytes;
  h.blob_bytes = s.blob_bytes(stream.size());
  h.dtype = format::kDtypeBf16;
  h.layout = 1;
  h.class_count = static_cast<std::uint8_t>(classes.size());
  h.scale_count = static_cast<std::uint16_t>(scales.size());
  h.table_units = static_cast<std::uint16_t>(units.size());
  h.batch = shape.batch;
  h.rows = shape.rows;
  h.cols = shape.cols;
  h.stream_bytes = stream.size();
  h.block_starts_offset = s.block_starts_offset;
  h.escape_counts_offset = s.escape_counts_offset;
  h.scales_offset = s.scales_offset;
  h.tables_offset = s.tables_offset;
  h.row_scales_offset = s.row_scales_offset;
  h.stream_offset = s.stream_offset;
  Bytes blob(static_cast<std::size_t>(h.blob_bytes));
  std::memcpy(blob.data(), &h, sizeof h);
  std::memcpy(blob.data() + s.block_starts_offset, starts.data(), starts.size() * 4);
  std::memcpy(blob.data() + s.escape_counts_offset, escape_counts.data(), escape_counts.size() * 2);
  std::memcpy(blob.data() + s.scales_offset, scales.data(), scales.size() * 2);
  std::memcpy(blob.data() + s.tables_offset, units.data(), units.size() * 2);
  std::memcpy(blob.data() + s.row_scales_offset, row_scales.data(), row_scales.size());
  std::memcpy(blob.data() + s.stream_offset, stream.data(), stream.size());
  reseal(blob);
  return blob;
}

TEST(DistributionStreams, EveryValidStreamDecodesAsTheReferenceSays) {
  test::Random random(77);
  for (int i = 0; i < 60; ++i) {
    const Bytes blob = random_blob(random);
    const auto view = rans::open_blob(blob);
    ASSERT_TRUE(view) << view.error().message;
    ASSERT_TRUE(rans::reference_decode(blob).has_value()) << i;
    expect_as_reference(blob, *view, "stream " + std::to_string(i));
  }
}

// ---- corrupt bytes --------------------------------------------------------------------------------------------------

TEST(DistributionHostile, EveryPrefixFailsCleanly) {
  for (const Filling filling : {Filling::kRareSpecials, Filling::kUniformBits}) {
    const auto blob = encoded({1, 32, 128}, filling);
    for (std::size_t size = 0; size < blob.size(); ++size) {
      // A copy of its own, so that a sanitizer sees a read beyond the end.
      const Bytes prefix(blob.begin(), blob.begin() + static_cast<std::ptrdiff_t>(size));
      const auto result = decoded(prefix);
      ASSERT_FALSE(result) << size;
      ASSERT_EQ(result.error().code, ErrorCode::kTruncated) << result.error().message;
    }
    auto longer = blob;
    longer.resize(blob.size() + 1000, std::byte{0xff});
    EXPECT_TRUE(decoded(longer));
  }
}

TEST(DistributionHostile, EveryFlippedBitIsHarmlessOrReported) {
  for (const Filling filling : {Filling::kRareSpecials, Filling::kUniformBits}) {
    const MatrixShape shape{1, 30, 120};
    const auto values = make_tensor(shape, filling, 1);
    auto blob = distribution::encode(values, shape).value();
    std::size_t reported = 0;
    for (std::size_t bit = 0; bit < blob.size() * 8; ++bit) {
      blob[bit / 8] ^= std::byte{1} << bit % 8;
      if (const auto result = decoded(blob)) {
        ASSERT_TRUE(*result == values) << "bit " << bit;
      } else {
        ++reported;
        ASSERT_FALSE(result.error().message.empty());
      }
      ASSERT_FALSE(distribution::verify_blob(blob)) << "bit " << bit;
      blob[bit / 8] ^= std::byte{1} << bit % 8;
    }
    EXPECT_GT(reported, blob.size() * 4);
  }
}

// The same with the checksums made right again: the decoder's own checks must keep every access inside, and come to the
// reference's verdict.
TEST(DistributionHostile, EveryFlippedBitWithRightChecksumsStaysInside) {
  const auto original = encoded({1, 19, 130}, Filling::kRareSpecials);
  ASSERT_EQ(distribution::inspect(original)->layout, distribution::Layout::kCoded);
  for (std::size_t bit = 0; bit < original.size() * 8; ++bit) {
    auto blob = original;
    blob[bit / 8] ^= std::byte{1} << bit % 8;
    if (!format::distribution::read_header(blob)) continue;
    reseal(blob);
    const auto view = rans::open_blob(blob);
    if (!view) continue;
    expect_as_reference(blob, *view, "bit " + std::to_string(bit));
  }
}

TEST(DistributionHostile, RandomMutationsStayInside) {
  test::Random random(2026);
  const std::vector<Bytes> originals = {encoded({2, 40, 100}, Filling::kEscapes1p5),
                                        encoded({1, 17, 1030}, Filling::kTrained),
                                        encoded({1, 20, 64}, Filling::kConstant), random_blob(random)};
  std::size_t opened = 0;
  for (int round = 0; round < 6000; ++round) {
    auto blob = originals[random.below(originals.size())];
    const Header h = header_of(blob);
    for (std::uint64_t i = 1 + random.below(6); i > 0; --i) {
      // Mostly tables, states and words; the checks of the header alone are tested elsewhere.
      const std::uint64_t begin = random.below(8) == 0 ? 0 : random.below(2) == 0 ? 256 : h.stream_offset;
      const std::uint64_t at = begin + random.below(blob.size() - begin);
      switch (random.below(3)) {
        case 0:
          blob[at] = static_cast<std::byte>(random.next());
          break;
        case 1:
          blob[at] ^= std::byte{1} << random.below(8);
          break;
        default:
          for (std::uint64_t k = at; k < std::min<std::uint64_t>(blob.size(), at + random.below(64)); ++k) {
            blob[k] = random.below(2) == 0 ? std::byte{0} : std::byte{0xff};
          }
      }
    }
    if (!format::distribution::read_header(blob)) continue;
    reseal(blob);
    const auto view = rans::open_blob(blob);
    if (!view || view->values() > 1 << 20) continue;
    ++opened;
    expect_as_reference(blob, *view, "round " + std::to_string(round));
  }
  EXPECT_GT(opened, 1000U);
}

struct Damage {
  const char* what;
  ErrorCode code;
  std::function<void(Bytes&, const Header&)> apply;
  bool resealed = true;
};

TEST(DistributionHostile, OneErrorForEachKindOfDamage) {
  const auto coded = encoded({1, 128, 1100}, Filling::kRareSpecials);
  const auto raw = encoded({1, 16, 16}, Filling::kUniformBits);
  ASSERT_EQ(distribution::inspect(coded)->layout, distribution::Layout::kCoded);
  ASSERT_EQ(distribution::inspect(raw)->layout, distribution::Layout::kRaw);
  using B = Bytes;
  const std::vector<Damage> damages = {
      {"magic", ErrorCode::kBadMagic, [](B& b, const Header&) { b[3] = std::byte{'x'}; }, false},
      {"major version", ErrorCode::kUnsupportedVersion,
       [](B& b, const Header&) { poke(b, offsetof(Header, version_major), std::uint16_t{2}); }, false},
      {"header checksum", ErrorCode::kChecksumMismatch, [](B& b, const Header&) { b[40] ^= std::byte{1}; }, false},
      {"payload", ErrorCode::kChecksumMismatch, [](B& b, const Header&) { b[b.size() - 1] ^= std::byte{1}; }, false},
      {"content checksum", ErrorCode::kChecksumMismatch,
       [](B& b, const Header&) { b[offsetof(Header, content_checksum)] ^= std::byte{1}; }},
      {"header bytes", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, header_bytes), std::uint32_t{128}); }},
      {"dtype", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[offsetof(Header, dtype)] = std::byte{2}; }},
      {"layout", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[offsetof(Header, layout)] = std::byte{2}; }},
      {"reserved", ErrorCode::kCorruptHeader, [](B& b, const Header&) { b[130] = std::byte{1}; }},
      {"2^47 rows", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, rows), std::uint64_t{1} << 47); }},
      {"offset", ErrorCode::kCorruptHeader,
       [](B& b, const Header& h) { poke(b, offsetof(Header, tables_offset), h.tables_offset + 2); }},
      {"blob bytes", ErrorCode::kCorruptHeader,
       [](B& b, const Header& h) { poke(b, offsetof(Header, blob_bytes), h.blob_bytes - 128); }},
  };
  for (const auto& original : {coded, raw}) {
    for (const Damage& damage : damages) {
      auto blob = original;
      damage.apply(blob, header_of(original));
      if (damage.resealed) reseal(blob);
      const auto result = distribution::verify_blob(blob);
      ASSERT_FALSE(result) << damage.what;
      EXPECT_EQ(result.error().code, damage.code) << damage.what << ": " << result.error().message;
    }
  }
  const std::vector<Damage> coded_damages = {
      {"no rows", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, rows), std::uint64_t{0}); }},
      {"classes", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { b[offsetof(Header, class_count)] = std::byte{9}; }},
      {"no classes", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { b[offsetof(Header, class_count)] = std::byte{0}; }},
      {"scales", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, scale_count), std::uint16_t{257}); }},
      {"table units", ErrorCode::kCorruptHeader,
       [](B& b, const Header&) { poke(b, offsetof(Header, table_units), std::uint16_t{5}); }},
      {"stream bytes", ErrorCode::kCorruptHeader,
       [](B& b, const Header& h) { poke(b, offsetof(Header, stream_bytes), h.stream_bytes + 2); }},
      {"a window beyond the tables", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.tables_offset, std::uint16_t{254}); }},
      {"frequencies", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) {
         poke(b, h.tables_offset + 6, static_cast<std::uint16_t>(peek<std::uint16_t>(b, h.tables_offset + 6) + 1));
       }},
      {"a scale's class", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.scales_offset, std::uint16_t{7 << 10}); }},
      {"a scale's reserved bits", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.scales_offset, std::uint16_t{1 << 15}); }},
      {"a row's scale", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { b[h.row_scales_offset + 17] = static_cast<std::byte>(h.scale_count); }},
      {"the first start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.block_starts_offset, std::uint32_t{1}); }},
      {"a falling start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.block_starts_offset + 8, std::uint32_t{1}); }},
      {"a start beyond the stream", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.block_starts_offset + 8, 0xffffffffU); }},
      {"the last start", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) {
         const std::size_t at = h.escape_counts_offset - 4;
         poke(b, at, peek<std::uint32_t>(b, at) - 1);
       }},
      {"escape count", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) { poke(b, h.escape_counts_offset, std::uint16_t{65535}); }},
      {"words", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) {
         const std::size_t end = h.stream_offset + 4 * std::size_t{peek<std::uint32_t>(b, h.block_starts_offset + 4)};
         for (std::size_t i = end - 200; i < end; ++i) b[i] ^= std::byte{0xff};
       }},
      {"a state", ErrorCode::kCorruptPayload,
       [](B& b, const Header& h) {
         b[h.stream_offset + format::distribution::suffix_plane_bytes(16 * 18) + 4] ^= std::byte{1};
       }},
  };
  for (const Damage& damage : coded_damages) {
    auto blob = coded;
    damage.apply(blob, header_of(coded));
    reseal(blob);
    std::vector<std::uint16_t> values(128 * 1100);
    const auto result = distribution::decode(blob, values, {.threads = 2, .verify_checksums = false});
    ASSERT_FALSE(result) << damage.what;
    EXPECT_EQ(result.error().code, damage.code) << damage.what << ": " << result.error().message;
  }
}

TEST(DistributionHostile, EscapesOutOfPlace) {
  // The first block has at least two escapes: a NaN and an infinity among the first values.
  const MatrixShape shape{1, 128, 1100};
  auto values = make_tensor(shape, Filling::kTrained, 4);
  values[3] = 0x7fc1;
  values[90] = 0x7f80;
  const auto original = distribution::encode(values, shape).value();
  const Header h = header_of(original);
  const auto view = rans::open_blob(original).value();
  ASSERT_GE(view.escape_count(0), 2U);
  const std::size_t states = h.stream_offset + format::distribution::suffix_plane_bytes(16 * 18);
  const auto mask = peek<std::uint32_t>(original, states);
  const std::size_t escapes = states + 100 + format::align_up(static_cast<std::uint64_t>(std::popcount(mask)), 4);
  ASSERT_EQ(peek<std::uint16_t>(original, escapes), 3U);
  const std::pair<std::size_t, std::uint16_t> pokes[] = {
      {0, std::uint16_t{90}},      // repeated, or not ascending
      {0, std::uint16_t{575}},     // beyond the part's last column but one row's; block_cols is 576
      {4, std::uint16_t{0xffff}},  // beyond the block
      {2, std::uint16_t{1024}},    // no prefix
  };
  for (const auto& [at, value] : pokes) {
    auto blob = original;
    poke(blob, escapes + at, value);
    reseal(blob);
    std::vector<std::uint16_t> out(values.size());
    const auto result = distribution::decode(blob, out, {.verify_checksums = false});
    ASSERT_FALSE(result) << at << " " << value;
    EXPECT_EQ(result.error().code, ErrorCode::kCorruptPayload) << result.error().message;
  }
}

// ---- golden files ---------------------------------------------------------------------------------------------------

// Blobs that some released version wrote: they must decode to the same values for ever. New ones are added with
// UNWEIGHT_UPDATE_GOLDEN=1; existing files are never rewritten.
TEST(DistributionGolden, DecodeForEver) {
  const std::filesystem::path folder = std::filesystem::path(UNWEIGHT_TEST_DATA_DIR) / "golden" / "distribution-v1.0";
  const MatrixShape shapes[] = {{1, 40, 100}, {2, 20, 64}};
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : shapes) {
      const auto values = make_tensor(shape, filling, 2026);
      const auto path = folder / (test::name_of(filling) + "_" + std::to_string(shape.batch) + "x" +
                                  std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + ".blob");
      if (std::getenv("UNWEIGHT_UPDATE_GOLDEN") != nullptr && !std::filesystem::exists(path)) {
        std::filesystem::create_directories(folder);
        const auto blob = distribution::encode(values, shape).value();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(blob.data()), static_cast<std::streamsize>(blob.size()));
      }
      std::ifstream file(path, std::ios::binary);
      ASSERT_TRUE(file) << path;
      Bytes blob(static_cast<std::size_t>(std::filesystem::file_size(path)));
      file.read(reinterpret_cast<char*>(blob.data()), static_cast<std::streamsize>(blob.size()));
      ASSERT_TRUE(file) << path;
      ASSERT_TRUE(distribution::verify_blob(blob)) << path;
      EXPECT_TRUE(decoded(blob).value() == values) << path;
      EXPECT_TRUE(rans::reference_decode(blob) == values) << path;
    }
  }
}

}  // namespace
}  // namespace unweight
