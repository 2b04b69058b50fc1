// SPDX-License-Identifier: Apache-2.0
//
// The two halves of a bfloat16 value: sign + mantissa (8 bits) and exponent (8 bits, stored rotated).
//
//   bf16 bits      s eeeeeee e mmmmmmm
//   sign_mantissa  s mmmmmmm              one byte, stored as it is
//   rotated        e(0) e(7..1)           the exponent rotated right by one
//
// With the exponent rotated, both bytes of the value are bit-selects of these two bytes under one mask:
//   low byte = (rotated & 0x80) | (sign_mantissa & 0x7f), high byte = (sign_mantissa & 0x80) | (rotated & 0x7f).
#pragma once

#include <cstdint>
#include <format/layout.hpp>

namespace unweight::format {

UNWEIGHT_HOST_DEVICE constexpr std::uint8_t exponent_of(std::uint16_t bf16) {
  return static_cast<std::uint8_t>(bf16 >> 7);
}

UNWEIGHT_HOST_DEVICE constexpr std::uint8_t sign_mantissa_of(std::uint16_t bf16) {
  return static_cast<std::uint8_t>(((bf16 >> 8) & 0x80) | (bf16 & 0x7f));
}

UNWEIGHT_HOST_DEVICE constexpr std::uint8_t rotate_exponent(std::uint8_t exponent) {
  return static_cast<std::uint8_t>((exponent >> 1) | (exponent << 7));
}

UNWEIGHT_HOST_DEVICE constexpr std::uint8_t unrotate_exponent(std::uint8_t rotated) {
  return static_cast<std::uint8_t>((rotated << 1) | (rotated >> 7));
}

UNWEIGHT_HOST_DEVICE constexpr std::uint16_t join_bf16(std::uint8_t sign_mantissa, std::uint8_t rotated) {
  const std::uint32_t low = (rotated & 0x80u) | (sign_mantissa & 0x7fu);
  const std::uint32_t high = (sign_mantissa & 0x80u) | (rotated & 0x7fu);
  return static_cast<std::uint16_t>(high << 8 | low);
}

// ---- exception entries: position in bits 0..9, exponent index in bits 10..15 ----------------------------------------

UNWEIGHT_HOST_DEVICE constexpr std::uint32_t entry_position(std::uint16_t entry) { return entry & 1023u; }

/// Whether the entry's exponent is the low byte of the unit that follows.
UNWEIGHT_HOST_DEVICE constexpr bool entry_is_extended(std::uint16_t entry) { return entry >> 10 == kExtendedIndex; }

/// Exponent of an entry that is not extended: index 0 is exponent 0 (zeros and subnormals), index i exception_base + i.
UNWEIGHT_HOST_DEVICE constexpr std::uint8_t entry_exponent(std::uint16_t entry, std::uint8_t exception_base) {
  const std::uint32_t index = entry >> 10;
  return static_cast<std::uint8_t>(index == 0 ? 0 : exception_base + index);
}

/// Whether an entry can hold `exponent` without extension.
UNWEIGHT_HOST_DEVICE constexpr bool exponent_fits_entry(std::uint8_t exponent, std::uint8_t exception_base) {
  return exponent == 0 || (exponent > exception_base && exponent <= exception_base + kExceptionWindow);
}

/// Requires exponent_fits_entry().
UNWEIGHT_HOST_DEVICE constexpr std::uint16_t make_entry(std::uint32_t position, std::uint8_t exponent,
                                                        std::uint8_t exception_base) {
  const std::uint32_t index = exponent == 0 ? 0u : static_cast<std::uint32_t>(exponent - exception_base);
  return static_cast<std::uint16_t>(position | index << 10);
}

/// The first of an extended entry's two units; the second is the exponent.
UNWEIGHT_HOST_DEVICE constexpr std::uint16_t make_extended_entry(std::uint32_t position) {
  return static_cast<std::uint16_t>(position | kExtendedIndex << 10);
}

}  // namespace unweight::format
