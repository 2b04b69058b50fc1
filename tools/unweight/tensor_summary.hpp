// SPDX-License-Identifier: Apache-2.0
//
// What the tensors of a checkpoint add up to: by kind ("q_proj", "down_proj", ...) and by layer, derived from names.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unweight/checkpoint.hpp>
#include <vector>

namespace unweight::cli {

using ExponentHistogram = std::array<std::uint64_t, 256>;

/// Sums over tensors.
struct Totals {
  std::uint64_t tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t source_bytes = 0;
  std::uint64_t stored_bytes = 0;
  std::uint64_t blobs = 0;
  std::uint64_t aliases = 0;
  std::uint64_t alias_elements = 0;
  std::uint64_t blob_elements = 0;
  std::uint64_t exceptions = 0;
  ExponentHistogram exponents{};  ///< of the BF16 tensors; all 0 without histograms

  void add(const TensorReport& tensor);
  /// Stored bits for each element that is stored; nullopt when there is none.
  [[nodiscard]] std::optional<double> bits_per_weight() const;
};

/// Entropy in bits of one drawn exponent; nullopt when the histogram is empty.
[[nodiscard]] std::optional<double> entropy_of(const ExponentHistogram& histogram);

[[nodiscard]] std::uint64_t element_count(const TensorReport& tensor);

/// The tensors of one kind.
struct KindSummary {
  std::string kind;
  Totals totals;
  /// Indexed by layer, stored bits for each weight of this kind there; nullopt where the layer has none.
  std::vector<std::optional<double>> layer_bits;
};

struct TensorSummary {
  Totals totals;
  std::vector<KindSummary> kinds;    ///< largest first
  std::vector<std::size_t> kind_of;  ///< for each tensor, its index in `kinds`
  std::size_t layers = 0;            ///< 0: no tensor's name has a layer number
};

/// The layer is the first number in a name; the kind is the rest after it, without ".weight" and further numbers
/// (experts), shortened to the last components that still tell the kinds apart.
[[nodiscard]] TensorSummary summarize(std::span<const TensorReport> tensors);

}  // namespace unweight::cli
