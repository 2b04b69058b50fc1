// SPDX-License-Identifier: Apache-2.0
//
// One block of the distribution form, from values to bytes.
#pragma once

#include <array>
#include <codec/rans_kernels.hpp>
#include <cstddef>
#include <cstdint>
#include <format/distribution_layout.hpp>
#include <vector>

namespace unweight::codec::distribution {

/// Memory for a block on its way.
struct BlockScratch {
  static constexpr std::size_t kSlack = 64;  ///< what kernels write beyond, or read
  std::array<std::uint8_t, format::distribution::kMaxBlockValues + kSlack> ranks;
  std::array<std::uint16_t, format::distribution::kMaxBlockValues + kSlack> words;  ///< filled from the end
  std::vector<EncodeRow> rows;                                                      ///< set by the caller
};

/// The most bytes that a block can take: every value an escape and a word.
inline constexpr std::size_t kMaxBlockBytes =
    format::distribution::kMaxBlockValues * format::distribution::kSuffixBits / 8 +
    format::distribution::kMaxStateBytes + format::distribution::kStartUnit +
    format::distribution::kMaxBlockValues * (format::distribution::kEscapeBytes + sizeof(std::uint16_t));

struct BlockValues {
  const std::uint16_t* values = nullptr;
  std::size_t stride = 0;  ///< values from row to row
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;
  std::uint32_t block_cols = 0;  ///< of all blocks: what positions of escapes count with

  // The values of the block that is encoded next, if any: they are brought to the cache meanwhile.
  const std::uint16_t* next = nullptr;
  std::uint32_t next_rows = 0;
  std::uint32_t next_cols = 0;
};

struct CodedSize {
  std::uint32_t bytes = 0;
  std::uint16_t escapes = 0;
};

/// Writes a block to `out`, which has room for kMaxBlockBytes.
[[nodiscard]] CodedSize encode_block(const RansKernels& kernels, const BlockValues& block, BlockScratch& scratch,
                                     std::byte* out);

}  // namespace unweight::codec::distribution
