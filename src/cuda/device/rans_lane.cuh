// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of the distribution form's decoder: what one lane of a warp does in a step of 32 values
// (docs/DISTRIBUTION.md, section 5). Plain functions of their arguments, for host and device alike.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::device {

/// What a slot of a class decodes to, in one word of shared memory: frequency - 1 in bits 0..11; rank + 1, or 0 for
/// those that stand for prefix 0, in bits 12..19; slot less the symbol's first slot in bits 20..31. The last is on the
/// path from state to state, and at the top it takes one instruction to use. 0 is found out about without another one.
using RansSlot = std::uint32_t;

UNWEIGHT_HOST_DEVICE constexpr RansSlot make_slot(std::uint32_t frequency, std::uint32_t rank,
                                                  std::uint32_t slot_in_symbol) {
  const std::uint32_t window_rank = rank < format::distribution::kMaxWindow ? rank + 1 : 0;
  return (frequency - 1) | window_rank << 12 | slot_in_symbol << 20;
}

/// Number of the slot that a state names.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t slot_of(std::uint32_t state) {
  return state & (format::distribution::kFrequencyTotal - 1);
}

/// The state after a symbol; below kStateLow it takes a word. In 32 bits, whatever the state: modulo 2^32 in a corrupt
/// block.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t next_state(std::uint32_t state, RansSlot slot) {
  const std::uint32_t high = state >> format::distribution::kFrequencyBits;
  return (slot & 0xfff) * high + (high + (slot >> 20));
}

/// What prefix_bits() makes use of for a row's base: modulo 2^32, less one rank.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t base_bits(std::uint32_t base) { return (base - 1) << 5; }

/// A value but for its suffix, in bits 5..14; bits above them are anything.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t prefix_bits(RansSlot slot, std::uint32_t base_bits) {
  const std::uint32_t rank12 = slot & 0xff000U;  // 2^12 times the rank + 1
  return rank12 != 0 ? (rank12 >> 7) + base_bits : 0;
}

/// Joins prefix_bits() with a suffix in bits 0..5 of `suffix`; what lies above does not matter. The value is in the low
/// half of the result, the high half is anything.
UNWEIGHT_HOST_DEVICE inline std::uint32_t join_suffix(std::uint32_t prefix, std::uint32_t suffix) {
  return select_bits(0x8000U, suffix << 10, select_bits(0x7fe0U, prefix, suffix));
}

/// Where a lane's 6 bits lie in the 24 bytes of a step: from bit `shift` of a word, perhaps on into the next one. That
/// of the last lanes is the first word of what follows the step; their bits do not reach it.
struct SuffixPlace {
  std::uint32_t word;
  std::uint32_t shift;
};

UNWEIGHT_HOST_DEVICE constexpr SuffixPlace suffix_place(std::uint32_t lane) {
  constexpr std::uint32_t kWordBits = 32;
  const std::uint32_t bit = lane * format::distribution::kSuffixBits;
  return {bit / kWordBits, bit % kWordBits};
}

}  // namespace unweight::device
