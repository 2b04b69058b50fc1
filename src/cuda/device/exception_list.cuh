// SPDX-License-Identifier: Apache-2.0
//
// Reading a tile's list of exceptions with a warp, one unit a lane. An entry is one unit, or two where the first says
// that it is extended (docs/FORMAT.md, section 4). `extended` is the ballot of the lanes whose unit has that mark; most
// lists have none.
#pragma once

#include <cstdint>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

inline constexpr std::uint32_t kUnitsPerStep = 32;  ///< a unit a lane

/// Where a tile's exceptions are: units of the blob's list, and often a copy of them in shared memory.
struct ExceptionList {
  std::uint32_t begin;  ///< of the blob's units
  std::uint32_t
      packed;  ///< lowest kPlaceBits: byte offset in shared memory, 0: not there; above: count; then the marks
  static constexpr std::uint32_t kPlaceBits = 18, kCountBits = 10;
  static constexpr std::uint32_t kUnusual = 1U << 30;  ///< more than a step's units, or not in shared memory
  static constexpr std::uint32_t kEscaped = 1U << 31;  ///< a plane of exponents

  static UNWEIGHT_HOST_DEVICE constexpr ExceptionList make(std::uint32_t begin, std::uint32_t count,
                                                           std::uint32_t place) {
    const std::uint32_t unusual = count > kUnitsPerStep || place == 0 ? kUnusual : 0;
    const std::uint32_t escaped = count == format::kEscapedTileUnits ? kEscaped : 0;
    return {begin, place | count << kPlaceBits | unusual | escaped};
  }

  /// Of a tile outside the matrix.
  static UNWEIGHT_HOST_DEVICE constexpr ExceptionList absent() { return {0, kUnusual | kEscaped}; }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr bool is_absent() const { return packed == absent().packed; }

  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t place() const { return packed & ((1U << kPlaceBits) - 1); }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t count() const {
    return packed >> kPlaceBits & ((1U << kCountBits) - 1);
  }
  /// As count(), of a usual list.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t usual_count() const { return packed >> kPlaceBits; }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr bool is_unusual() const { return packed >= kUnusual; }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr bool is_escaped() const { return packed >= kEscaped; }
};
static_assert(format::kEscapedTileUnits < 1U << ExceptionList::kCountBits);

/// Whether a lane's unit is the second half of an extended entry.
UNWEIGHT_HOST_DEVICE constexpr bool is_second_half(std::uint32_t extended, std::uint32_t lane) {
  return (extended << 1 >> lane & 1) != 0;
}

/// Whether a lane's unit begins an entry all of which is among the step's units. `count` is the number of units left in
/// the list, this step's included. An extended entry without a second half is none.
UNWEIGHT_HOST_DEVICE constexpr bool begins_entry(std::uint32_t extended, std::uint32_t lane, std::uint32_t count) {
  const std::uint32_t units = count < kUnitsPerStep ? count : kUnitsPerStep;
  const bool is_extended = (extended >> lane & 1) != 0;
  return lane < units && !is_second_half(extended, lane) && !(is_extended && lane + 1 == units);
}

/// How many units to go on by after a step: the last one again where it is the first half of an entry.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t units_read(std::uint32_t extended) {
  return extended >> 30 == 2 ? kUnitsPerStep - 1 : kUnitsPerStep;
}

/// A decoded value with the exponent of its exception.
UNWEIGHT_HOST_DEVICE constexpr std::uint16_t with_exponent(std::uint16_t value, std::uint8_t exponent) {
  return static_cast<std::uint16_t>((value & 0x807fU) | std::uint32_t{exponent} << 7);
}

}  // namespace unweight::device
