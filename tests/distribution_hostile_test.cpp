// SPDX-License-Identifier: Apache-2.0
//
// Distribution blobs that are cut, damaged or made up.
#include "support/distribution_blobs.hpp"
#include <bit>
#include <codec/distribution_open.hpp>
#include <functional>
#include <gtest/gtest.h>

namespace unweight {
namespace {

namespace rans = codec::distribution;
using format::distribution::Header;
using test::Bytes;
using test::decode_distribution;
using test::distribution_blob;
using test::distribution_header;
using test::expect_as_reference;
using test::Filling;
using test::make_tensor;
using test::peek;
using test::poke;
using test::random_distribution_blob;
using test::reseal_distribution;

TEST(DistributionHostile, EveryPrefixFailsCleanly) {
  for (const Filling filling : {Filling::kRareSpecials, Filling::kUniformBits}) {
    const auto blob = distribution_blob({1, 32, 128}, filling);
    for (std::size_t size = 0; size < blob.size(); ++size) {
      // A copy of its own, so that a sanitizer sees a read beyond the end.
      const Bytes prefix(blob.begin(), blob.begin() + static_cast<std::ptrdiff_t>(size));
      const auto result = decode_distribution(prefix);
      ASSERT_FALSE(result) << size;
      ASSERT_EQ(result.error().code, ErrorCode::kTruncated) << result.error().message;
    }
    auto longer = blob;
    longer.resize(blob.size() + 1000, std::byte{0xff});
    EXPECT_TRUE(decode_distribution(longer));
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
      if (const auto result = decode_distribution(blob)) {
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
  const auto original = distribution_blob({1, 19, 130}, Filling::kRareSpecials);
  ASSERT_EQ(distribution::inspect(original)->layout, distribution::Layout::kCoded);
  for (std::size_t bit = 0; bit < original.size() * 8; ++bit) {
    auto blob = original;
    blob[bit / 8] ^= std::byte{1} << bit % 8;
    if (!format::distribution::read_header(blob)) continue;
    reseal_distribution(blob);
    const auto view = rans::open_blob(blob);
    if (!view) continue;
    expect_as_reference(blob, *view, "bit " + std::to_string(bit));
  }
}

TEST(DistributionHostile, RandomMutationsStayInside) {
  test::Random random(2026);
  const std::vector<Bytes> originals = {
      distribution_blob({2, 40, 100}, Filling::kEscapes1p5), distribution_blob({1, 17, 1030}, Filling::kTrained),
      distribution_blob({1, 20, 64}, Filling::kConstant), random_distribution_blob(random)};
  std::size_t opened = 0;
  for (int round = 0; round < 6000; ++round) {
    auto blob = originals[random.below(originals.size())];
    const Header h = distribution_header(blob);
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
    reseal_distribution(blob);
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
  const auto coded = distribution_blob({1, 128, 1100}, Filling::kRareSpecials);
  const auto raw = distribution_blob({1, 16, 16}, Filling::kUniformBits);
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
      damage.apply(blob, distribution_header(original));
      if (damage.resealed) reseal_distribution(blob);
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
    damage.apply(blob, distribution_header(coded));
    reseal_distribution(blob);
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
  const Header h = distribution_header(original);
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
    reseal_distribution(blob);
    std::vector<std::uint16_t> out(values.size());
    const auto result = distribution::decode(blob, out, {.verify_checksums = false});
    ASSERT_FALSE(result) << at << " " << value;
    EXPECT_EQ(result.error().code, ErrorCode::kCorruptPayload) << result.error().message;
  }
}

}  // namespace
}  // namespace unweight
