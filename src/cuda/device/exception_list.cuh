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
