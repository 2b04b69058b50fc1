// SPDX-License-Identifier: Apache-2.0
//
// Blobs of which the host has only what comes before the stream, or header and tables: the same verdict as on the
// whole, with nothing else read.
#include "support/distribution_blobs.hpp"
#include <codec/distribution_open.hpp>
#include <codec/open.hpp>
#include <gtest/gtest.h>

namespace unweight {
namespace {

using test::Bytes;
using test::Filling;
using test::make_tensor;
using test::Random;

/// A copy of its own, so that a sanitizer sees a read beyond it.
Bytes part(const Bytes& blob, std::uint64_t offset, std::uint64_t size) {
  const auto begin = blob.begin() + static_cast<std::ptrdiff_t>(offset);
  return {begin, begin + static_cast<std::ptrdiff_t>(size)};
}

TEST(BlobParts, TheFrontOfADistributionBlobIsEnough) {
  Random random(5);
  for (const Filling filling : {Filling::kTrained, Filling::kUniformBits}) {
    const Bytes original = test::distribution_blob({2, 40, 100}, filling);
    const std::uint64_t size = codec::distribution::front_bytes(part(original, 0, 256)).value();
    ASSERT_LE(size, original.size());
    ASSERT_TRUE(codec::distribution::open_front(part(original, 0, size)));
    for (std::uint64_t less = 0; less < size; ++less) {
      const auto cut = codec::distribution::open_front(part(original, 0, less));
      ASSERT_FALSE(cut);
      EXPECT_EQ(cut.error().code, ErrorCode::kTruncated);
    }
    for (int round = 0; round < 500; ++round) {
      Bytes damaged = original;
      damaged[random.below(size)] ^= static_cast<std::byte>(1U << random.below(8));
      if (!format::distribution::read_header(damaged)) continue;
      test::reseal_distribution(damaged);
      const auto whole = codec::distribution::open_blob(damaged);
      const auto needed = codec::distribution::front_bytes(damaged);
      if (!needed || *needed > damaged.size()) continue;
      const auto front = codec::distribution::open_front(part(damaged, 0, *needed));
      // The stream's own bytes are looked at in the whole alone.
      EXPECT_TRUE(front || !whole) << round;
    }
  }
}

TEST(BlobParts, HeaderAndTablesOfARuntimeBlobAreEnough) {
  Random random(6);
  for (const Filling filling : {Filling::kEscapes1p5, Filling::kUniformBits}) {
    const MatrixShape shape{2, 40, 300};
    const Bytes original = encode(make_tensor(shape, filling, 1), shape).value();
    const format::ByteRange range = codec::tables_range(part(original, 0, 256)).value();
    EXPECT_EQ(range.size == 0, inspect(original)->layout == BlobLayout::kRaw);
    const Bytes header = part(original, 0, 256);
    ASSERT_TRUE(codec::open_tables(header, part(original, range.offset, range.size)));
    if (range.size == 0) continue;
    EXPECT_EQ(codec::open_tables(header, part(original, range.offset, range.size - 1)).error().code,
              ErrorCode::kTruncated);
    for (int round = 0; round < 500; ++round) {
      Bytes damaged = original;
      damaged[range.offset + random.below(range.size)] ^= static_cast<std::byte>(1U << random.below(8));
      const auto whole = codec::open_blob(damaged);
      const auto tables = codec::open_tables(header, part(damaged, range.offset, range.size));
      ASSERT_EQ(whole.has_value(), tables.has_value()) << round;
      if (!whole) {
        EXPECT_EQ(whole.error().message, tables.error().message);
      }
    }
  }
}

}  // namespace
}  // namespace unweight
