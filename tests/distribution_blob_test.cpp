// SPDX-License-Identifier: Apache-2.0
//
// Distribution blobs as files meet them: sizes, streams that no encoder of ours made, golden files.
#include "support/distribution_blobs.hpp"
#include <codec/checksum.hpp>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

namespace unweight {
namespace {

namespace rans = codec::distribution;
using test::Bytes;
using test::decode_distribution;
using test::distribution_blob;
using test::expect_as_reference;
using test::Filling;
using test::make_tensor;
using test::random_distribution_blob;

// ---- sizes ----------------------------------------------------------------------------------------------------------

TEST(DistributionSize, TrainedWeightsTakeAtMost10Point52Bits) {
  const auto info = distribution::inspect(distribution_blob({1, 2048, 2048}, Filling::kTrained)).value();
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
    const auto info = distribution::inspect(distribution_blob(shape, c.filling)).value();
    EXPECT_EQ(info.layout, distribution::Layout::kCoded) << test::name_of(c.filling);
    EXPECT_LE(info.bits_per_weight, c.most_bits) << test::name_of(c.filling);
  }
}

TEST(DistributionSize, NeverAboveTheBound) {
  for (const Filling filling : test::kAllFillings) {
    for (const MatrixShape& shape : {MatrixShape{1, 1, 1}, MatrixShape{1, 16, 64}, MatrixShape{1, 512, 512},
                                     MatrixShape{1, 1, 100000}, MatrixShape{1, 100000, 1}, MatrixShape{7, 5, 9}}) {
      EXPECT_LE(distribution_blob(shape, filling).size(), encode_bound(shape).value()) << test::name_of(filling);
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
      const auto blob = distribution_blob(shape, filling, 42);
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

TEST(DistributionStreams, EveryValidStreamDecodesAsTheReferenceSays) {
  test::Random random(77);
  for (int i = 0; i < 60; ++i) {
    const Bytes blob = random_distribution_blob(random);
    const auto view = rans::open_blob(blob);
    ASSERT_TRUE(view) << view.error().message;
    ASSERT_TRUE(rans::reference_decode(blob).has_value()) << i;
    expect_as_reference(blob, *view, "stream " + std::to_string(i));
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
      EXPECT_TRUE(decode_distribution(blob).value() == values) << path;
      EXPECT_TRUE(rans::reference_decode(blob) == values) << path;
    }
  }
}

}  // namespace
}  // namespace unweight
