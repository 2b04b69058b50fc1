// SPDX-License-Identifier: Apache-2.0
#include "support/distribution_blobs.hpp"
#include <algorithm>
#include <codec/distribution_decode.hpp>
#include <codec/distribution_model.hpp>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <codec/open.hpp>
#include <cstring>
#include <gtest/gtest.h>

namespace unweight::test {

namespace rans = codec::distribution;
using format::distribution::Header;

Bytes distribution_blob(const MatrixShape& shape, Filling filling, std::uint64_t seed) {
  return distribution::encode(make_tensor(shape, filling, seed), shape).value();
}

Header distribution_header(const Bytes& blob) { return format::distribution::read_header(blob).value(); }

void reseal_distribution(Bytes& blob) {
  poke(blob, offsetof(Header, payload_checksum),
       codec::payload_checksum(std::span<const std::byte>(blob).subspan(format::kHeaderBytes), 1));
  poke(blob, offsetof(Header, header_checksum), rans::header_checksum(distribution_header(blob)));
}

Result<std::vector<std::uint16_t>> decode_distribution(std::span<const std::byte> blob) {
  const auto info = distribution::inspect(blob);
  if (!info) return tl::unexpected(info.error());
  std::vector<std::uint16_t> values(static_cast<std::size_t>(info->value_bytes / 2));
  if (auto ok = distribution::decode(blob, values); !ok) return tl::unexpected(ok.error());
  return values;
}

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

Bytes random_distribution_blob(Random& random) {
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
  reseal_distribution(blob);
  return blob;
}

}  // namespace unweight::test
