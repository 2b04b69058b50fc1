// SPDX-License-Identifier: Apache-2.0
//
// The C interface to the distribution form: what it gives is what C++ gives, and it refuses what it must.
#include <cstring>
#include <gtest/gtest.h>
#include <string>
#include <support/tensors.hpp>
#include <unweight/distribution.hpp>
#include <unweight/unweight.h>
#include <vector>

namespace unweight {
namespace {

class CApiDistribution : public testing::Test {
 protected:
  CApiDistribution()
      : values_(test::make_tensor({2, 40, 200}, test::Filling::kEscapes1p5, 3)),
        expected_(distribution::encode(values_, {2, 40, 200}).value()) {}

  const unweight_matrix_shape shape_{2, 40, 200};
  const std::vector<std::uint16_t> values_;
  const std::vector<std::byte> expected_;
};

TEST_F(CApiDistribution, GivesTheSameBytesAndValuesAsCpp) {
  size_t bound = 0, size = 0;
  ASSERT_EQ(unweight_encode_bound(&shape_, &bound), UNWEIGHT_OK);
  std::vector<std::byte> blob(bound);
  ASSERT_EQ(unweight_distribution_encode(values_.data(), values_.size(), &shape_, 2, blob.data(), bound, &size),
            UNWEIGHT_OK);
  blob.resize(size);
  EXPECT_TRUE(blob == expected_);
  std::vector<std::uint16_t> decoded(values_.size());
  ASSERT_EQ(unweight_distribution_decode(blob.data(), size, decoded.data(), decoded.size(), 2, 1), UNWEIGHT_OK);
  EXPECT_TRUE(decoded == values_);
  std::vector<std::uint16_t> rows(3 * 200);
  ASSERT_EQ(unweight_distribution_decode_rows(blob.data(), size, 38, 3, rows.data(), rows.size(), 1), UNWEIGHT_OK);
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), values_.begin() + 38 * 200));
}

TEST_F(CApiDistribution, InspectFillsInEverything) {
  const auto expected = distribution::inspect(expected_).value();
  for (const bool verify : {false, true}) {
    unweight_distribution_info info;
    std::memset(&info, 0xee, sizeof info);
    info.struct_size = sizeof info;
    ASSERT_EQ(verify ? unweight_distribution_verify_blob(expected_.data(), expected_.size(), 1, &info)
                     : unweight_distribution_inspect(expected_.data(), expected_.size(), &info),
              UNWEIGHT_OK);
    EXPECT_EQ(info.struct_size, sizeof info);
    EXPECT_EQ(info.shape.batch, 2U);
    EXPECT_EQ(info.shape.rows, 40U);
    EXPECT_EQ(info.shape.cols, 200U);
    EXPECT_EQ(info.layout, static_cast<std::uint32_t>(UNWEIGHT_DISTRIBUTION_CODED));
    EXPECT_EQ(info.version_major, 1U);
    EXPECT_EQ(info.version_minor, 0U);
    EXPECT_EQ(info.blob_bytes, expected_.size());
    EXPECT_EQ(info.value_bytes, 2 * values_.size());
    EXPECT_EQ(info.block_count, expected.block_count);
    EXPECT_EQ(info.escape_count, expected.escape_count);
    EXPECT_EQ(info.class_count, expected.class_count);
    EXPECT_EQ(info.scale_count, expected.scale_count);
    EXPECT_EQ(info.content_checksum, expected.content_checksum);
    EXPECT_EQ(info.bits_per_weight, expected.bits_per_weight);
  }
  EXPECT_EQ(unweight_distribution_verify_blob(expected_.data(), expected_.size(), 1, nullptr), UNWEIGHT_OK);
}

TEST_F(CApiDistribution, RefusesWrongArguments) {
  size_t size = 77;
  std::vector<std::byte> small(100);
  EXPECT_EQ(unweight_distribution_encode(values_.data(), values_.size(), &shape_, 1, small.data(), 100, &size),
            UNWEIGHT_BUFFER_TOO_SMALL);
  EXPECT_EQ(size, encode_bound({2, 40, 200}).value());
  EXPECT_EQ(unweight_distribution_encode(values_.data(), 5, &shape_, 1, small.data(), 100, &size),
            UNWEIGHT_SHAPE_MISMATCH);
  EXPECT_EQ(size, 0U);
  EXPECT_EQ(unweight_distribution_encode(nullptr, 5, &shape_, 1, small.data(), 100, &size), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_encode(values_.data(), values_.size(), nullptr, 1, small.data(), 100, &size),
            UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_encode(values_.data(), values_.size(), &shape_, 1, small.data(), 100, nullptr),
            UNWEIGHT_INVALID_ARGUMENT);
  std::vector<std::uint16_t> decoded(values_.size());
  EXPECT_EQ(unweight_distribution_decode(expected_.data(), expected_.size(), decoded.data(), 5, 1, 1),
            UNWEIGHT_SHAPE_MISMATCH);
  EXPECT_EQ(unweight_distribution_decode(expected_.data(), expected_.size(), nullptr, 5, 1, 1),
            UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_decode_rows(expected_.data(), expected_.size(), 81, 0, nullptr, 0, 1),
            UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_inspect(expected_.data(), expected_.size(), nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_distribution_info info{};
  EXPECT_EQ(unweight_distribution_inspect(expected_.data(), expected_.size(), &info), UNWEIGHT_INVALID_ARGUMENT);
  info.struct_size = sizeof info;
  EXPECT_EQ(unweight_distribution_inspect(nullptr, 10, &info), UNWEIGHT_INVALID_ARGUMENT);
}

TEST_F(CApiDistribution, EveryReaderReportsDamage) {
  auto blob = expected_;
  blob[blob.size() / 2] ^= std::byte{1};
  unweight_distribution_info info{};
  info.struct_size = sizeof info;
  EXPECT_EQ(unweight_distribution_verify_blob(blob.data(), blob.size(), 1, &info), UNWEIGHT_CHECKSUM_MISMATCH);
  EXPECT_NE(std::string(unweight_last_error_message()), "");
  std::vector<std::uint16_t> values(values_.size());
  EXPECT_EQ(unweight_distribution_decode(blob.data(), 300, values.data(), values.size(), 1, 1), UNWEIGHT_TRUNCATED);
  EXPECT_EQ(unweight_distribution_decode_rows(blob.data(), 300, 0, 80, values.data(), values.size(), 1),
            UNWEIGHT_TRUNCATED);
  EXPECT_EQ(unweight_distribution_inspect(blob.data(), 300, &info), UNWEIGHT_TRUNCATED);
  EXPECT_EQ(unweight_decode(expected_.data(), expected_.size(), values.data(), values.size(), 1, 1),
            UNWEIGHT_BAD_MAGIC);
}

}  // namespace
}  // namespace unweight
