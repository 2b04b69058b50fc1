// SPDX-License-Identifier: Apache-2.0
//
// What the canonical encoder of the distribution form decides (docs/DISTRIBUTION.md, section 7): scales of rows,
// windows of prefixes, frequencies. Integers only, so that every machine comes to the same bytes.
#pragma once

#include <array>
#include <codec/rans_kernels.hpp>
#include <cstddef>
#include <cstdint>
#include <format/distribution_layout.hpp>
#include <format/distribution_view.hpp>
#include <span>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::codec::distribution {

/// Rows of fewer values are not coded: a step of 32 would mostly be padding.
inline constexpr std::uint64_t kLeastCols = 16;

/// Classes of scales: more where the tensor is large enough to pay for their tables.
[[nodiscard]] std::uint32_t choose_class_count(const MatrixShape& shape) noexcept;

/// One in so many steps of 32 columns is counted for the frequencies.
[[nodiscard]] std::uint32_t choose_count_interval(const MatrixShape& shape) noexcept;

/// The scale of a row: its mean prefix in units of 1 / class_count octaves, rounded. 0 for a row of zeros.
[[nodiscard]] std::uint32_t scale_position(const RowSums& sums, std::uint32_t class_count) noexcept;

/// Rounds positions down to whole octaves where there are more than 256 different ones. Returns whether it did.
bool limit_positions(std::span<std::uint16_t> positions, std::uint32_t class_count);

/// How often each prefix occurs in the rows of a class, relative to their octave.
struct ClassCounts {
  std::array<std::uint64_t, format::distribution::kPrefixes> relative{};  ///< not those of prefix 0
  std::uint64_t zeros = 0;

  void add(const ClassCounts& other) noexcept;
};

/// The model of a class.
struct ClassModel {
  std::uint32_t window_begin = 0;  ///< relative prefix of rank 0
  std::uint32_t window = 0;        ///< number of ranks that are prefixes
  format::distribution::Frequencies frequencies{};
};

[[nodiscard]] ClassModel make_class_model(const ClassCounts& counts);

/// The frequencies of symbols that occur `counts` times: they sum to 4096, and every symbol of `wanted` gets 1 or more.
[[nodiscard]] format::distribution::Frequencies normalize(
    const std::array<std::uint64_t, format::distribution::kRanks>& counts,
    const std::array<bool, format::distribution::kRanks>& wanted);

/// Everything about a tensor that its blocks are coded with.
struct TensorModel {
  std::vector<ClassModel> classes;
  std::vector<std::uint16_t> scales;     ///< as they are stored
  std::vector<std::uint8_t> row_scales;  ///< by row: index into scales
};

/// Every row's position has been limited; `counts` has an entry for each class.
[[nodiscard]] TensorModel make_tensor_model(std::span<const std::uint16_t> positions,
                                            std::span<const ClassCounts> counts);

/// The units of the table section.
[[nodiscard]] std::vector<std::uint16_t> table_units(std::span<const ClassModel> classes);

[[nodiscard]] EncodeTable make_encode_table(const ClassModel& model) noexcept;

}  // namespace unweight::codec::distribution
