// SPDX-License-Identifier: Apache-2.0
//
// The arithmetic of the distribution form's decoder: what one lane of a warp does in a step of 32 values
// (docs/DISTRIBUTION.md, section 5). Plain functions of their arguments, for host and device alike.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::device {

/// What a slot of a class decodes to, in one word of shared memory: frequency - 1 in bits 0..11, rank in bits 12..19,
/// slot less the symbol's first slot in bits 20..31. The last is on the path from state to state, and at the top it
/// takes one instruction to use.
using RansSlot = std::uint32_t;

UNWEIGHT_HOST_DEVICE constexpr RansSlot make_slot(std::uint32_t frequency, std::uint32_t rank,
                                                  std::uint32_t slot_in_symbol) {
  return (frequency - 1) | rank << 12 | slot_in_symbol << 20;
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

/// A value but for its suffix, in bits 5..14; bits above them are anything. `base5`: the row's base times 32.
UNWEIGHT_HOST_DEVICE constexpr std::uint32_t prefix_bits(RansSlot slot, std::uint32_t base5) {
  const std::uint32_t rank12 = slot & 0xff000U;  // the rank times 2^12
  return rank12 < format::distribution::kMaxWindow << 12 ? (rank12 >> 7) + base5 : 0;
}

/// Joins prefix_bits() with a suffix in bits 0..5 of `suffix`; what lies above does not matter. The value is in the low
/// half of the result, the high half is anything.
UNWEIGHT_HOST_DEVICE inline std::uint32_t join_suffix(std::uint32_t prefix, std::uint32_t suffix) {
  return select_bits(0x8000U, suffix << 10, select_bits(0x7fe0U, prefix, suffix));
}

/// Where a lane's 6 bits lie in the 24 bytes of a step.
struct SuffixPlace {
  std::uint32_t word0, word1;  ///< of the step's six words; the same where the bits do not go on into another
  std::uint32_t shift;
};

UNWEIGHT_HOST_DEVICE constexpr SuffixPlace suffix_place(std::uint32_t lane) {
  constexpr std::uint32_t kWordBits = 32;
  const std::uint32_t bit = lane * format::distribution::kSuffixBits, word = bit / kWordBits;
  const std::uint32_t last = format::distribution::kStepSuffixBytes / sizeof(std::uint32_t) - 1;
  return {word, word < last ? word + 1 : last, bit % kWordBits};
}

}  // namespace unweight::device
