// SPDX-License-Identifier: Apache-2.0
//
// The quick codec against the reference, bit for bit, on every implementation that this CPU runs.
#include "support/tensors.hpp"
#include <codec/decode.hpp>
#include <codec/encode.hpp>
#include <codec/open.hpp>
#include <codec/palette.hpp>
#include <codec/reference.hpp>
#include <gtest/gtest.h>

namespace unweight {
namespace {

using test::Filling;
using test::make_tensor;

struct Case {
  MatrixShape shape;
  Filling filling;
};

std::string describe(const Case& c) {
  return test::name_of(c.filling) + " " + std::to_string(c.shape.batch) + "x" + std::to_string(c.shape.rows) + "x" +
         std::to_string(c.shape.cols);
}

std::vector<Case> small_cases() {
  std::vector<Case> cases;
  for (const std::uint64_t rows : {1U, 15U, 16U, 17U, 48U}) {
    for (const std::uint64_t cols : {1U, 63U, 64U, 65U, 127U, 200U}) {
      for (const Filling filling : test::kAllFillings) cases.push_back({{1, rows, cols}, filling});
    }
  }
  for (const Filling filling : test::kAllFillings) {
    cases.push_back({{3, 20, 70}, filling});
    cases.push_back({{2, 16, 64}, filling});
    cases.push_back({{1, 64, 1024}, filling});  // all 65,536 values once
    cases.push_back({{1, 300, 320}, filling});  // more than one segment, more than 256 palettes for random bits
    cases.push_back({{1, 33, 4200}, filling});  // segments that end within a strip
  }
  for (const MatrixShape& empty : {MatrixShape{0, 4, 4}, MatrixShape{1, 0, 4}, MatrixShape{1, 4, 0}}) {
    cases.push_back({empty, Filling::kTrained});
  }
  return cases;
}

std::vector<std::byte> encode_by(const codec::TileKernels& kernels, std::span<const std::uint16_t> values,
                                 const MatrixShape& shape, unsigned threads) {
  std::vector<std::byte> out(static_cast<std::size_t>(encode_bound(shape).value()), std::byte{0xa5});
  const auto size = codec::encode_with(kernels, values, shape, out, threads);
  EXPECT_TRUE(size.has_value()) << (size ? "" : size.error().message);
  out.resize(static_cast<std::size_t>(size.value_or(0)));
  return out;
}

TEST(Codec, EncodesAsTheReferenceDoes) {
  for (const Case& c : small_cases()) {
    const auto values = make_tensor(c.shape, c.filling, 7);
    const auto expected = codec::reference_encode(values, c.shape);
    for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
      for (const unsigned threads : {1U, 3U}) {
        const auto blob = encode_by(*kernels, values, c.shape, threads);
        ASSERT_EQ(blob, expected) << describe(c) << " " << kernels->name << " threads " << threads;
      }
    }
  }
}

/// More exceptions than the encoder keeps: it finds those of some chunks twice.
TEST(Codec, EncodesManyExceptionsAsTheReferenceDoes) {
  const MatrixShape shape{1, 2000, 1000};
  const auto values = make_tensor(shape, Filling::kEscapes15, 21);
  const auto expected = codec::reference_encode(values, shape);
  for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
    for (const unsigned threads : {1U, 3U}) {
      EXPECT_TRUE(encode_by(*kernels, values, shape, threads) == expected) << kernels->name << " threads " << threads;
    }
  }
}

TEST(Codec, DecodesExactly) {
  for (const Case& c : small_cases()) {
    const auto values = make_tensor(c.shape, c.filling, 11);
    const auto blob = encode(values, c.shape);
    ASSERT_TRUE(blob) << describe(c);
    ASSERT_EQ(codec::reference_decode(*blob), values) << describe(c);
    const auto view = codec::open_blob(*blob);
    ASSERT_TRUE(view) << describe(c) << ": " << view.error().message;
    for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
      for (const unsigned threads : {1U, 3U}) {
        std::vector<std::uint16_t> decoded(values.size(), 0xdead);
        const auto ok = codec::decode_with(*kernels, *view, decoded, {.threads = threads});
        ASSERT_TRUE(ok) << describe(c) << ": " << ok.error().message;
        ASSERT_EQ(decoded, values) << describe(c) << " " << kernels->name;
      }
    }
    ASSERT_TRUE(verify_blob(*blob)) << describe(c);
  }
}

// Every one of the 65,536 bit patterns at every position class of a tile, by shifting the sequence.
TEST(Codec, EveryValueInEveryLane) {
  const MatrixShape shape{1, 64, 1024};
  for (std::uint64_t shift = 0; shift < 1024; shift += 61) {
    const auto values = make_tensor(shape, Filling::kEveryValue, shift);
    const auto blob = encode(values, shape);
    ASSERT_TRUE(blob);
    std::vector<std::uint16_t> decoded(values.size());
    ASSERT_TRUE(decode(*blob, decoded));
    ASSERT_EQ(decoded, values);
  }
}

// The same, in tiles: a trained tensor in which a window of the sequence of all values stands.
TEST(Codec, EveryValueWithinTiles) {
  const MatrixShape shape{1, 256, 512};
  const auto trained = make_tensor(shape, Filling::kTrained, 3);
  for (std::uint32_t first = 0; first < 65536; first += 8192) {
    auto values = trained;
    for (std::uint32_t i = 0; i < 8192; ++i) values[i * 16 + first % 15] = static_cast<std::uint16_t>(first + i);
    const auto blob = encode(values, shape);
    ASSERT_TRUE(blob);
    ASSERT_EQ(inspect(*blob)->layout, BlobLayout::kTiled);
    std::vector<std::uint16_t> decoded(values.size());
    ASSERT_TRUE(decode(*blob, decoded));
    ASSERT_EQ(decoded, values);
    ASSERT_EQ(codec::reference_decode(*blob), values);
  }
}

TEST(Codec, IgnoresAlignmentOfItsBuffers) {
  const MatrixShape shape{1, 40, 130};
  const auto values = make_tensor(shape, Filling::kTrained, 5);
  const auto blob = encode(values, shape).value();
  for (std::size_t shift = 0; shift < 9; ++shift) {
    std::vector<std::byte> moved(blob.size() + shift);
    std::copy(blob.begin(), blob.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
    std::vector<std::uint16_t> decoded(values.size() + shift);
    const auto out = std::span(decoded).subspan(shift);
    ASSERT_TRUE(decode(std::span<const std::byte>(moved).subspan(shift), out));
    ASSERT_TRUE(std::equal(out.begin(), out.end(), values.begin()));
  }
}

TEST(Codec, DecodesAnyRangeOfRows) {
  test::Random random(1);
  for (const Case& c : {Case{{1, 100, 130}, Filling::kTrained}, Case{{5, 21, 64}, Filling::kOutlierColumns},
                        Case{{1, 50, 3}, Filling::kTrained}, Case{{2, 17, 300}, Filling::kUniformBits}}) {
    const auto values = make_tensor(c.shape, c.filling, 2);
    const auto blob = encode(values, c.shape).value();
    const std::uint64_t rows = c.shape.batch * c.shape.rows;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t begin = random.below(rows + 1), count = random.below(rows - begin + 1);
      std::vector<std::uint16_t> part(static_cast<std::size_t>(count * c.shape.cols), 0xdead);
      const auto ok = decode_rows(blob, begin, count, part, {.threads = 1 + static_cast<unsigned>(i % 2)});
      ASSERT_TRUE(ok) << describe(c) << ": " << ok.error().message;
      ASSERT_TRUE(
          std::equal(part.begin(), part.end(), values.begin() + static_cast<std::ptrdiff_t>(begin * c.shape.cols)));
    }
    std::vector<std::uint16_t> none;
    EXPECT_EQ(decode_rows(blob, rows, 1, none).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(decode_rows(blob, rows + 1, 0, none).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(decode_rows(blob, 0, 1, none).error().code, ErrorCode::kShapeMismatch);
  }
}

TEST(Codec, RefusesWrongArguments) {
  const std::vector<std::uint16_t> values(64);
  std::vector<std::byte> out(10);
  EXPECT_EQ(encode(values, {1, 8, 9}).error().code, ErrorCode::kShapeMismatch);
  EXPECT_EQ(encode_into(values, {1, 8, 8}, out).error().code, ErrorCode::kBufferTooSmall);
  EXPECT_EQ(encode_bound({1, std::uint64_t{1} << 40, 1 << 20}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(encode_bound({1, std::uint64_t{1} << 50, 0}).error().code, ErrorCode::kInvalidArgument);
  const auto blob = encode(values, {1, 8, 8}).value();
  std::vector<std::uint16_t> decoded(63);
  EXPECT_EQ(decode(blob, decoded).error().code, ErrorCode::kShapeMismatch);
}

codec::Palette best_palette_of(const std::array<std::uint32_t, 256>& histogram) {
  codec::RowCounts row;
  row.assign(histogram);
  return codec::best_palette(row);
}

TEST(Palettes, PreferCountThenNearnessThenLowness) {
  std::array<std::uint32_t, 256> histogram{};
  histogram[120] = 5;
  EXPECT_EQ(best_palette_of(histogram), (codec::Palette{116, 117, 118, 119, 120, 121, 122, 123}));
  histogram[200] = 1;
  EXPECT_EQ(best_palette_of(histogram), (codec::Palette{117, 118, 119, 120, 121, 122, 123, 200}));
  histogram = {};
  EXPECT_EQ(best_palette_of(histogram), (codec::Palette{0, 1, 2, 3, 4, 5, 6, 7}));
  histogram.fill(1);
  EXPECT_EQ(best_palette_of(histogram), (codec::Palette{0, 1, 2, 3, 4, 5, 6, 7}));
  histogram[255] = 2;
  EXPECT_EQ(best_palette_of(histogram), (codec::Palette{248, 249, 250, 251, 252, 253, 254, 255}));
}

/// Expects every implementation to choose the palette that follows from a plain count.
void expect_choice(std::span<const std::uint16_t> values, const std::string& what) {
  std::array<std::uint32_t, 256> histogram{};
  for (const std::uint16_t value : values) ++histogram[value >> 7 & 255];
  const codec::Palette expected = best_palette_of(histogram);
  for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
    ASSERT_EQ(kernels->choose_palette(values.data(), values.size()), expected) << kernels->name << " " << what;
  }
}

TEST(Palettes, EveryImplementationChoosesAlike) {
  for (const Filling filling : test::kAllFillings) {
    for (const std::size_t count : {0U,   1U,   31U,  32U,  33U,   63U,    64U,    384U,   479U,   480U,   481U,
                                    511U, 512U, 513U, 960U, 4096U, 65279U, 65280U, 65281U, 65535U, 65536U, 200001U}) {
      expect_choice(make_tensor({1, 1, count}, filling, count), test::name_of(filling) + " " + std::to_string(count));
    }
  }
}

// Short rows with exponents from a narrow range, at either end of all exponents: counts are often equal, and values
// beside the range are as frequent as the rarest of the palette.
TEST(Palettes, EveryImplementationResolvesTiesAlike) {
  test::Random random(5);
  std::vector<std::uint16_t> values;
  for (std::uint32_t round = 0; round < 20000; ++round) {
    values.resize(32 + random.below(100));
    const std::uint64_t lowest = random.below(256), range = 1 + random.below(24), strays = random.below(4);
    for (std::uint16_t& value : values) {
      const std::uint64_t step = std::min(random.below(range), random.below(range));
      value = static_cast<std::uint16_t>(std::min<std::uint64_t>(255, lowest + step) << 7 | random.below(128));
    }
    for (std::uint64_t i = 0; i < strays; ++i)
      values[random.below(values.size())] = static_cast<std::uint16_t>(random.next());
    expect_choice(values, "round " + std::to_string(round));
  }
}

TEST(Palettes, ExceptionBaseCoversMost) {
  std::array<std::uint64_t, 256> outside{};
  EXPECT_EQ(codec::best_exception_base(outside), 0);
  outside[0] = 1000;  // always representable
  outside[255] = 1;
  EXPECT_EQ(codec::best_exception_base(outside), 193);
  outside[100] = outside[120] = 5;
  EXPECT_EQ(codec::best_exception_base(outside), 58);
}

}  // namespace
}  // namespace unweight
