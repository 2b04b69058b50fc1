// SPDX-License-Identifier: Apache-2.0
//
// The quick codec of the distribution form against the reference, bit for bit, on every implementation that this CPU
// runs.
#include "support/tensors.hpp"
#include <codec/distribution_decode.hpp>
#include <codec/distribution_encode.hpp>
#include <codec/distribution_model.hpp>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <gtest/gtest.h>
#include <numeric>

namespace unweight {
namespace {

namespace rans = codec::distribution;
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
    for (const std::uint64_t cols : {1U, 15U, 16U, 31U, 32U, 33U, 64U, 65U, 200U}) {
      for (const Filling filling : test::kAllFillings) cases.push_back({{1, rows, cols}, filling});
    }
  }
  for (const Filling filling : test::kAllFillings) {
    cases.push_back({{3, 20, 70}, filling});
    cases.push_back({{2, 300, 64}, filling});  // row groups of 256 rows
    cases.push_back({{1, 2, 32}, filling});    // two steps in all, then three and four: what the states carry
    cases.push_back({{1, 3, 32}, filling});
    cases.push_back({{1, 4, 32}, filling});
    cases.push_back({{1, 64, 1024}, filling});   // all 65,536 values once; two classes
    cases.push_back({{1, 17, 1025}, filling});   // two parts of the columns, the second narrow
    cases.push_back({{1, 33, 4200}, filling});   // five parts
    cases.push_back({{2, 130, 1100}, filling});  // four classes
  }
  for (const MatrixShape& empty : {MatrixShape{0, 4, 4}, MatrixShape{1, 0, 4}, MatrixShape{1, 4, 0}}) {
    cases.push_back({empty, Filling::kTrained});
  }
  return cases;
}

std::vector<std::byte> encode_by(const rans::RansKernels& kernels, std::span<const std::uint16_t> values,
                                 const MatrixShape& shape, unsigned threads) {
  std::vector<std::byte> out(static_cast<std::size_t>(encode_bound(shape).value()), std::byte{0xa5});
  const auto size = rans::encode_with(kernels, values, shape, out, threads);
  EXPECT_TRUE(size.has_value()) << (size ? "" : size.error().message);
  out.resize(static_cast<std::size_t>(size.value_or(0)));
  return out;
}

void expect_decodes(std::span<const std::byte> blob, const std::vector<std::uint16_t>& values,
                    const std::string& what) {
  const auto view = rans::open_blob(blob);
  ASSERT_TRUE(view) << what << ": " << view.error().message;
  for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
    for (const unsigned threads : {1U, 3U}) {
      std::vector<std::uint16_t> decoded(values.size(), 0xdead);
      const auto ok = rans::decode_with(*kernels, *view, decoded, {.threads = threads});
      ASSERT_TRUE(ok) << what << " " << kernels->name << ": " << ok.error().message;
      ASSERT_TRUE(decoded == values) << what << " " << kernels->name;
    }
  }
}

TEST(DistributionCodec, EncodesAsTheReferenceDoesAndDecodesExactly) {
  for (const Case& c : small_cases()) {
    const auto values = make_tensor(c.shape, c.filling, 7);
    const auto expected = rans::reference_encode(values, c.shape);
    ASSERT_TRUE(rans::reference_decode(expected) == values) << describe(c);
    for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
      for (const unsigned threads : {1U, 3U}) {
        const auto blob = encode_by(*kernels, values, c.shape, threads);
        ASSERT_TRUE(blob == expected) << describe(c) << " " << kernels->name << " threads " << threads;
      }
    }
    expect_decodes(expected, values, describe(c));
    ASSERT_TRUE(distribution::verify_blob(expected)) << describe(c);
  }
}

// So many values that not all are counted, and so many blocks that they are encoded in several chunks.
TEST(DistributionCodecSlow, EncodesLargeTensorsAsTheReferenceDoes) {
  for (const Case& c : {Case{{1, 2048, 2304}, Filling::kTrained}, Case{{3, 1000, 1500}, Filling::kRareSpecials},
                        Case{{1, 40000, 112}, Filling::kEscapes1p5}}) {
    const auto values = make_tensor(c.shape, c.filling, 7);
    const auto expected = rans::reference_encode(values, c.shape);
    for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
      for (const unsigned threads : {1U, 3U}) {
        const auto blob = encode_by(*kernels, values, c.shape, threads);
        ASSERT_TRUE(blob == expected) << describe(c) << " " << kernels->name << " threads " << threads;
      }
    }
    expect_decodes(expected, values, describe(c));
  }
}

// Every one of the 65,536 bit patterns in every lane and at several distances from the window, among trained values.
TEST(DistributionCodec, EveryValueInEveryLane) {
  const MatrixShape shape{1, 256, 1024};
  const auto trained = make_tensor(shape, Filling::kTrained, 3);
  for (std::uint32_t shift = 0; shift < 32; ++shift) {
    auto values = trained;
    for (std::uint32_t i = 0; i < 65536 / 8; ++i) {
      values[i * 32 + shift] = static_cast<std::uint16_t>(i * 8 + (shift & 7));
      values[i * 32 + (shift ^ 1)] = static_cast<std::uint16_t>(65535 - (i * 8 + (shift & 7)));
    }
    const auto blob = distribution::encode(values, shape).value();
    ASSERT_EQ(distribution::inspect(blob)->layout, distribution::Layout::kCoded);
    expect_decodes(blob, values, "shift " + std::to_string(shift));
    if (shift % 8 == 0) {
      ASSERT_TRUE(rans::reference_decode(blob) == values);
    }
  }
}

/// Rows of all scales: over 256 different ones, so that they are rounded to octaves.
TEST(DistributionCodec, MoreScalesThanARowCanName) {
  const MatrixShape shape{1, 1024, 512};
  std::vector<std::uint16_t> values(shape.rows * shape.cols);
  test::Random random(5);
  for (std::uint64_t row = 0; row < shape.rows; ++row) {
    for (std::uint64_t col = 0; col < shape.cols; ++col) {
      values[row * shape.cols + col] =
          static_cast<std::uint16_t>((row & 1023) << 5 | (random.next() & 0x801fU));  // one prefix a row
    }
  }
  const auto expected = rans::reference_encode(values, shape);
  EXPECT_EQ(distribution::inspect(expected)->layout, distribution::Layout::kCoded);
  EXPECT_EQ(distribution::inspect(expected)->scale_count, 256U);
  for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
    EXPECT_TRUE(encode_by(*kernels, values, shape, 2) == expected) << kernels->name;
  }
  expect_decodes(expected, values, "all scales");
}

TEST(DistributionCodec, IgnoresAlignmentOfItsBuffers) {
  const MatrixShape shape{1, 40, 1130};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 5);
  const auto blob = distribution::encode(values, shape).value();
  for (std::size_t shift = 0; shift < 9; ++shift) {
    std::vector<std::byte> moved(blob.size() + shift);
    std::copy(blob.begin(), blob.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
    std::vector<std::uint16_t> decoded(values.size() + shift);
    const auto out = std::span(decoded).subspan(shift);
    ASSERT_TRUE(distribution::decode(std::span<const std::byte>(moved).subspan(shift), out));
    ASSERT_TRUE(std::equal(out.begin(), out.end(), values.begin()));
  }
}

TEST(DistributionCodec, DecodesAnyRangeOfRows) {
  test::Random random(1);
  for (const Case& c : {Case{{1, 100, 130}, Filling::kTrained}, Case{{5, 21, 64}, Filling::kOutlierColumns},
                        Case{{1, 50, 3}, Filling::kTrained}, Case{{2, 77, 300}, Filling::kSparse},
                        Case{{1, 90, 1500}, Filling::kTrained}}) {
    const auto values = make_tensor(c.shape, c.filling, 2);
    const auto blob = distribution::encode(values, c.shape).value();
    const std::uint64_t rows = c.shape.batch * c.shape.rows;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t begin = random.below(rows + 1), count = random.below(rows - begin + 1);
      std::vector<std::uint16_t> part(static_cast<std::size_t>(count * c.shape.cols), 0xdead);
      const auto ok =
          distribution::decode_rows(blob, begin, count, part, {.threads = 1 + static_cast<unsigned>(i % 2)});
      ASSERT_TRUE(ok) << describe(c) << ": " << ok.error().message;
      ASSERT_TRUE(
          std::equal(part.begin(), part.end(), values.begin() + static_cast<std::ptrdiff_t>(begin * c.shape.cols)));
    }
    std::vector<std::uint16_t> none;
    EXPECT_EQ(distribution::decode_rows(blob, rows, 1, none).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(distribution::decode_rows(blob, rows + 1, 0, none).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(distribution::decode_rows(blob, 0, 1, none).error().code, ErrorCode::kShapeMismatch);
  }
}

TEST(DistributionCodec, TranscodesToTheBytesOfTheOtherEncoder) {
  for (const Case& c : {Case{{1, 100, 1300}, Filling::kTrained}, Case{{3, 64, 128}, Filling::kOutlierRows},
                        Case{{1, 64, 1024}, Filling::kUniformBits}, Case{{1, 0, 7}, Filling::kTrained}}) {
    const auto values = make_tensor(c.shape, c.filling, 2);
    const auto runtime = encode(values, c.shape).value();
    const auto coded = distribution::encode(values, c.shape).value();
    EXPECT_TRUE(distribution::to_runtime(coded, {.threads = 2}).value() == runtime) << describe(c);
    EXPECT_TRUE(distribution::from_runtime(runtime, {.threads = 2}).value() == coded) << describe(c);
    EXPECT_EQ(distribution::inspect(coded)->content_checksum, inspect(runtime)->content_checksum) << describe(c);
    EXPECT_TRUE(distribution::is_blob(coded));
    EXPECT_FALSE(distribution::is_blob(runtime));
  }
}

TEST(DistributionCodec, RefusesWrongArguments) {
  const std::vector<std::uint16_t> values(64);
  std::vector<std::byte> out(10);
  EXPECT_EQ(distribution::encode(values, {1, 8, 9}).error().code, ErrorCode::kShapeMismatch);
  EXPECT_EQ(distribution::encode_into(values, {1, 8, 8}, out).error().code, ErrorCode::kBufferTooSmall);
  EXPECT_EQ(distribution::encode(values, {1, std::uint64_t{1} << 40, 1 << 20}).error().code,
            ErrorCode::kInvalidArgument);
  const auto blob = distribution::encode(values, {1, 8, 8}).value();
  std::vector<std::uint16_t> decoded(63);
  EXPECT_EQ(distribution::decode(blob, decoded).error().code, ErrorCode::kShapeMismatch);
  EXPECT_EQ(distribution::from_runtime(blob).error().code, ErrorCode::kBadMagic);
  EXPECT_EQ(decode(blob, decoded).error().code, ErrorCode::kBadMagic);
}

// ---- pieces ---------------------------------------------------------------------------------------------------------

/// The division of states: every frequency, states at both ends of every quotient's range among them.
TEST(DistributionKernels, EncodeAStepExactly) {
  using namespace format::distribution;
  test::Random random(9);
  for (std::uint32_t frequency = 1; frequency <= kFrequencyTotal; ++frequency) {
    rans::EncodeTable table;
    table.symbols.fill(frequency | (kFrequencyTotal - frequency) << 16);
    const std::array<std::uint8_t, kLanes> ranks{};
    for (int round = 0; round < 24; ++round) {
      rans::States states;
      for (std::uint32_t& x : states) {
        const std::uint64_t limit = std::uint64_t{1} << 32;
        const std::uint64_t multiple = random.below(limit / frequency) * frequency;
        switch (round % 4) {
          case 0:
            x = static_cast<std::uint32_t>(random.next());
            break;
          case 1:
            x = static_cast<std::uint32_t>(multiple - (random.next() & 1));
            break;
          case 2:
            x = static_cast<std::uint32_t>((std::uint64_t{frequency} << 20) - 1 - random.below(3));
            break;
          default:
            x = static_cast<std::uint32_t>(random.next() >> (32 + random.below(16)));
        }
        x = std::max(x, kStateLow);
      }
      std::array<std::uint16_t, 2 * kLanes + 8> expected_words{}, words{};
      rans::States expected = states;
      const auto* expected_begin = rans::scalar_rans_kernels().encode_row(
          ranks.data(), 1, table, expected, expected_words.data() + expected_words.size());
      const auto expected_count = expected_words.data() + expected_words.size() - expected_begin;
      for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
        rans::States found = states;
        const auto* begin = kernels->encode_row(ranks.data(), 1, table, found, words.data() + words.size());
        ASSERT_EQ(words.data() + words.size() - begin, expected_count) << kernels->name << " frequency " << frequency;
        ASSERT_TRUE(std::equal(begin, begin + expected_count, expected_begin)) << kernels->name;
        ASSERT_EQ(found, expected) << kernels->name << " frequency " << frequency;
      }
    }
  }
}

TEST(DistributionKernels, SumRowsAlike) {
  for (const Filling filling : test::kAllFillings) {
    for (const std::size_t count : {0U, 1U, 15U, 16U, 17U, 511U, 512U, 513U, 4096U, 70001U, 1100000U}) {
      const auto values = make_tensor({1, 1, count}, filling, count);
      const auto expected = rans::scalar_rans_kernels().sum_row(values.data(), count);
      for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
        const auto found = kernels->sum_row(values.data(), count);
        ASSERT_EQ(found.prefixes, expected.prefixes) << kernels->name << " " << test::name_of(filling) << " " << count;
        ASSERT_EQ(found.count, expected.count) << kernels->name << " " << test::name_of(filling) << " " << count;
      }
    }
  }
}

TEST(DistributionModel, FrequenciesSumToTheirTotal) {
  using namespace format::distribution;
  test::Random random(3);
  for (int round = 0; round < 3000; ++round) {
    std::array<std::uint64_t, kRanks> counts{};
    std::array<bool, kRanks> wanted{};
    const std::uint64_t symbols = 1 + random.below(256), spread = random.below(40);
    for (std::uint64_t s = 0; s < symbols; ++s) {
      wanted[s] = true;
      counts[s] = random.below(4) == 0 ? 0 : random.next() >> (24 + random.below(spread + 1));
    }
    const Frequencies frequencies = rans::normalize(counts, wanted);
    EXPECT_EQ(std::accumulate(frequencies.begin(), frequencies.end(), 0U), kFrequencyTotal);
    for (std::uint32_t s = 0; s < kRanks; ++s) EXPECT_EQ(frequencies[s] != 0, wanted[s]) << s;
  }
}

}  // namespace
}  // namespace unweight
