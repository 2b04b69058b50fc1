// SPDX-License-Identifier: Apache-2.0
//
// From bytes to a validated view of a distribution blob. Whoever holds one may index its tables, and a block's parts up
// to its words, without further checks. What only decoding can tell (escape positions, the words' number, the final
// states) is checked there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <format/blob_view.hpp>
#include <format/distribution_layout.hpp>
#include <span>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::format::distribution {

enum class Layout : std::uint8_t { kRaw = 0, kCoded = 1 };

/// The frequencies of a class: they sum to kFrequencyTotal.
using Frequencies = std::array<std::uint16_t, kRanks>;

/// Reads the header and checks what must hold before its checksum is worth computing: length, magic, version.
[[nodiscard]] Result<Header> read_header(std::span<const std::byte> bytes);

/// What comes before a blob's stream, validated: header and tables.
class Front {
 public:
  /// Validates `header` (as read_header() returned it) and the tables against `bytes`, which must reach up to the
  /// stream at least. Time is proportional to the number of rows and blocks. Errors: kTruncated, kCorruptHeader,
  /// kCorruptPayload. Throws bad_alloc.
  [[nodiscard]] static Result<Front> validate(const Header& header, std::span<const std::byte> bytes);

  /// How many bytes validate() needs. Errors: kCorruptHeader.
  [[nodiscard]] static Result<std::uint64_t> bytes_needed(const Header& header);

  [[nodiscard]] const Header& header() const noexcept { return header_; }
  [[nodiscard]] Layout layout() const noexcept { return static_cast<Layout>(header_.layout); }
  [[nodiscard]] std::uint64_t values() const noexcept { return header_.batch * header_.rows * header_.cols; }
  /// Bytes before the stream; of a raw blob, the header's.
  [[nodiscard]] std::uint64_t front_bytes() const noexcept {
    return layout() == Layout::kRaw ? kHeaderBytes : sections_.stream_offset;
  }

  // Coded blobs only from here on.

  [[nodiscard]] const Blocks& blocks() const noexcept { return blocks_; }
  [[nodiscard]] const Sections& sections() const noexcept { return sections_; }
  [[nodiscard]] BlockPlace place(std::uint64_t block) const noexcept {
    return place_block(blocks_, header_.rows, header_.cols, block);
  }
  [[nodiscard]] std::uint32_t escape_count(std::uint64_t block) const noexcept {
    return load<std::uint16_t>(at(sections_.escape_counts_offset) + block * sizeof(std::uint16_t));
  }
  [[nodiscard]] std::uint32_t class_count() const noexcept { return header_.class_count; }
  [[nodiscard]] const Frequencies& frequencies(std::uint32_t c) const noexcept { return frequencies_[c]; }
  /// The scale of a row of the tensor seen as one matrix.
  [[nodiscard]] std::uint16_t row_scale(std::uint64_t row) const noexcept {
    const auto number = static_cast<std::uint8_t>(*(at(sections_.row_scales_offset) + row));
    return load<std::uint16_t>(at(sections_.scales_offset) + number * sizeof(std::uint16_t));
  }
  /// Where a block begins, from the start of the stream; `block` may be blocks().count.
  [[nodiscard]] std::uint64_t start(std::uint64_t block) const noexcept {
    return std::uint64_t{kStartUnit} *
           load<std::uint32_t>(at(sections_.block_starts_offset) + block * sizeof(std::uint32_t));
  }

 protected:
  /// Checks the header alone; `blob_bytes` is set to the size that it stands for.
  [[nodiscard]] Result<void> read(const Header& header, std::uint64_t& blob_bytes);
  /// Validates the tables; `bytes_` is set.
  [[nodiscard]] Result<void> read_tables();
  [[nodiscard]] const std::byte* at(std::uint64_t offset) const noexcept { return bytes_.data() + offset; }

  std::span<const std::byte> bytes_;

 private:
  [[nodiscard]] Result<void> read_models();
  [[nodiscard]] Result<void> check_starts() const;

  Header header_{};
  Blocks blocks_{};
  Sections sections_{};
  std::vector<Frequencies> frequencies_;
};

class View : public Front {
 public:
  /// Validates `header` (as read_header() returned it) and the tables against `bytes`. Time is proportional to the
  /// number of rows and blocks, not of values. Errors: kTruncated, kCorruptHeader, kCorruptPayload. Throws bad_alloc.
  [[nodiscard]] static Result<View> validate(const Header& header, std::span<const std::byte> bytes);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  /// Everything after the header: what the payload checksum covers.
  [[nodiscard]] std::span<const std::byte> payload() const noexcept { return bytes_.subspan(kHeaderBytes); }
  /// Of a coded blob.
  [[nodiscard]] std::span<const std::byte> block(std::uint64_t block) const noexcept {
    return bytes_.subspan(static_cast<std::size_t>(sections().stream_offset + start(block)),
                          static_cast<std::size_t>(start(block + 1) - start(block)));
  }

 private:
  [[nodiscard]] Result<void> check_states() const;
};

}  // namespace unweight::format::distribution
