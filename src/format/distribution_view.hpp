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

/// Where a block lies in its tensor.
struct BlockPlace {
  std::uint64_t row = 0;   ///< first row in the tensor seen as one matrix of batch * rows rows
  std::uint64_t col = 0;   ///< first column
  std::uint32_t rows = 0;  ///< 1 to group_rows
  std::uint32_t cols = 0;  ///< 1 to block_cols

  [[nodiscard]] std::uint32_t steps() const noexcept { return rows * steps_per_row(cols); }
};

/// Reads the header and checks what must hold before its checksum is worth computing: length, magic, version.
[[nodiscard]] Result<Header> read_header(std::span<const std::byte> bytes);

class View {
 public:
  /// Validates `header` (as read_header() returned it) and the tables against `bytes`. Time is proportional to the
  /// number of rows and blocks, not of values. Errors: kTruncated, kCorruptHeader, kCorruptPayload. Throws bad_alloc.
  [[nodiscard]] static Result<View> validate(const Header& header, std::span<const std::byte> bytes);

  [[nodiscard]] const Header& header() const noexcept { return header_; }
  [[nodiscard]] Layout layout() const noexcept { return static_cast<Layout>(header_.layout); }
  [[nodiscard]] std::uint64_t values() const noexcept { return header_.batch * header_.rows * header_.cols; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  /// Everything after the header: what the payload checksum covers.
  [[nodiscard]] std::span<const std::byte> payload() const noexcept { return bytes_.subspan(kHeaderBytes); }

  // Coded blobs only from here on.

  [[nodiscard]] const Blocks& blocks() const noexcept { return blocks_; }
  [[nodiscard]] BlockPlace place(std::uint64_t block) const noexcept;
  [[nodiscard]] std::span<const std::byte> block(std::uint64_t block) const noexcept {
    return bytes_.subspan(static_cast<std::size_t>(sections_.stream_offset + start(block)),
                          static_cast<std::size_t>(start(block + 1) - start(block)));
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

 private:
  [[nodiscard]] const std::byte* at(std::uint64_t offset) const noexcept { return bytes_.data() + offset; }
  /// Of a block, from the start of the stream; `block` may be blocks().count.
  [[nodiscard]] std::uint64_t start(std::uint64_t block) const noexcept {
    return std::uint64_t{kStartUnit} *
           load<std::uint32_t>(at(sections_.block_starts_offset) + block * sizeof(std::uint32_t));
  }
  [[nodiscard]] Result<void> validate_models();
  [[nodiscard]] Result<void> validate_blocks() const;

  Header header_{};
  Blocks blocks_{};
  Sections sections_{};
  std::vector<Frequencies> frequencies_;
  std::span<const std::byte> bytes_;
};

/// Where a block of a tensor of this shape lies.
[[nodiscard]] BlockPlace place_block(const Blocks& blocks, std::uint64_t rows, std::uint64_t cols,
                                     std::uint64_t block) noexcept;

}  // namespace unweight::format::distribution
