// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of the distribution form's CPU codec: one table of functions, a portable and an AVX2 implementation
// that produce the same bytes, chosen once at run time. They work on one block (docs/DISTRIBUTION.md, section 5).
//
// Source: asymmetric numeral systems, J. Duda, arXiv 1311.2540; many states that share one stream of words,
// F. Giesen, "Interleaved entropy coders", arXiv 1402.3392.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <format/distribution_layout.hpp>
#include <span>
#include <vector>

namespace unweight::codec::distribution {

inline constexpr std::uint32_t kSlots = format::distribution::kFrequencyTotal;

/// What a slot decodes to: frequency - 1 in bits 0..11, slot less the symbol's first slot in bits 12..23, rank in bits
/// 24..31.
struct DecodeTable {
  alignas(64) std::array<std::uint32_t, kSlots> slots;
};

/// A row, as a decoder wants it.
struct DecodeRow {
  const DecodeTable* table = nullptr;
  std::uint32_t base = 0;
};

/// A block to be decoded, its parts located.
struct CodedBlock {
  std::uint32_t rows = 0;
  std::uint32_t cols = 0;
  const DecodeRow* row_models = nullptr;  ///< `rows` of them
  const std::byte* suffixes = nullptr;    ///< the suffix plane; 16 bytes or more after it may be read too
  std::array<std::uint32_t, format::distribution::kLanes> states{};
  const std::byte* words = nullptr;  ///< any alignment; nothing beyond word_count of them is read
  std::size_t word_count = 0;
};

/// The symbols of a class, as an encoder wants them.
struct EncodeTable {
  std::array<std::uint32_t, format::distribution::kRanks> symbols{};  ///< frequency; first slot << 16
  std::uint32_t window = 0;                                           ///< ranks below are prefixes
  std::uint32_t zero_rank = 0;  ///< of prefix 0: kZeroRank, or kEscapeRank where the class has no such symbol
  std::uint32_t padding_rank = 0;
};

struct EncodeRow {
  const EncodeTable* table = nullptr;
  std::uint32_t base = 0;
};

/// Sums over the values of a row whose prefix is not 0.
struct RowSums {
  std::uint64_t prefixes = 0;  ///< of their prefixes
  std::uint64_t count = 0;
};

inline constexpr std::size_t kCorrupt = SIZE_MAX;

/// A block to be decoded, as though it had no escapes.
struct DecodeJob {
  CodedBlock block;
  std::uint16_t* values = nullptr;  ///< receives the block's rows
  std::size_t stride = 0;           ///< values from row to row
  /// Result: how many words were used; kCorrupt where there are not enough of them, or the final states are not as they
  /// must be: then the values are unspecified.
  std::size_t words = 0;
};

/// Lanes of states, as encoder and decoder hand them over.
using States = std::array<std::uint32_t, format::distribution::kLanes>;

struct RansKernels {
  const char* name;

  /// For the scale of a row.
  RowSums (*sum_row)(const std::uint16_t* values, std::size_t count);

  /// Writes the ranks (32 a step, padding included) and the suffixes (24 bytes a step, and up to 8 bytes more) of one
  /// row of a block.
  void (*split_row)(const std::uint16_t* values, std::uint32_t cols, const EncodeRow& row, std::uint8_t* ranks,
                    std::byte* suffixes);

  /// Encodes the ranks of one row of a block backwards; a block's last row comes first. `states` go in as a decoder
  /// leaves them behind the row, and come out as it starts the row. Words are written downwards from `words_end`;
  /// returns the first. 8 words below it may be overwritten.
  std::uint16_t* (*encode_row)(const std::uint8_t* ranks, std::uint32_t steps, const EncodeTable& table, States& states,
                               std::uint16_t* words_end);

  /// Decodes blocks; two after each other that have the same shape take less time than each alone.
  void (*decode)(std::span<DecodeJob> jobs);
};

/// Portable implementation.
[[nodiscard]] const RansKernels& scalar_rans_kernels() noexcept;

/// The best implementation that this CPU runs; the environment variable UNWEIGHT_CPU=scalar forces the portable one.
[[nodiscard]] const RansKernels& rans_kernels() noexcept;

/// Every implementation that this CPU runs, the portable one first: for tests and benchmarks.
[[nodiscard]] std::vector<const RansKernels*> available_rans_kernels();

#if defined(UNWEIGHT_HAVE_AVX2)
/// To be called only where the CPU has AVX2 and BMI2.
[[nodiscard]] const RansKernels& avx2_rans_kernels() noexcept;
#endif

}  // namespace unweight::codec::distribution
