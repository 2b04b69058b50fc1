// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/distribution_block.hpp>
#include <codec/strips.hpp>
#include <cstring>
#include <format/blob_view.hpp>
#include <span>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;
using format::load;
using format::store;

/// The states that a decoder ends with: they carry the suffixes of the last steps.
States final_states(const std::byte* suffixes, std::uint32_t steps) {
  States states;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    states[lane] = kFinalState;
    const std::uint32_t bit = lane * kSuffixBits;
    for (std::uint32_t i = 0; i < std::min(steps, kStateSteps); ++i) {
      const std::byte* plane = suffixes + std::size_t{steps - 1 - i} * kStepSuffixBytes;
      const std::uint32_t suffix = load<std::uint16_t>(plane + bit / 8) >> bit % 8 & 63U;
      states[lane] |= suffix << i * kSuffixBits;
    }
  }
  return states;
}

std::byte* write_states(const States& states, std::byte* out) {
  std::uint32_t mask = 0;
  std::byte* low = out + kMaskBytes;
  std::byte* third = low + 2 * kLanes;
  std::byte* fourth = third + kLanes;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    store(low + 2 * lane, static_cast<std::uint16_t>(states[lane]));
    third[lane] = static_cast<std::byte>(states[lane] >> 16);
    if (states[lane] >> 24 == 0) continue;
    mask |= 1U << lane;
    *fourth++ = static_cast<std::byte>(states[lane] >> 24);
  }
  store(out, mask);
  while ((fourth - out) % kStartUnit != 0) *fourth++ = std::byte{0};
  return fourth;
}

std::byte* write_escapes(const BlockValues& block, const BlockScratch& scratch, std::byte* out) {
  const std::uint32_t row_ranks = steps_per_row(block.cols) * kLanes;
  const std::uint8_t* const begin = scratch.ranks.data();
  const std::uint8_t* const end = begin + std::size_t{block.rows} * row_ranks;
  const auto next = [end](const std::uint8_t* from) {
    return static_cast<const std::uint8_t*>(std::memchr(from, kEscapeRank, static_cast<std::size_t>(end - from)));
  };
  for (const std::uint8_t* at = next(begin); at != nullptr; at = next(at + 1)) {
    const auto index = static_cast<std::uint32_t>(at - begin);
    const std::uint32_t row = index / row_ranks, col = index % row_ranks;
    if (col >= block.cols) continue;  // padding
    store(out, static_cast<std::uint16_t>(row * block.block_cols + col));
    store(out + 2, static_cast<std::uint16_t>(prefix_of(block.values[row * block.stride + col])));
    out += kEscapeBytes;
  }
  return out;
}

}  // namespace

CodedSize encode_block(const RansKernels& kernels, const BlockValues& block, BlockScratch& scratch, std::byte* out) {
  const std::uint32_t row_steps = steps_per_row(block.cols), steps = block.rows * row_steps;
  // The suffixes go to their place at once; those of the last steps go on into the states, which overwrite them.
  for (std::uint32_t row = 0; row < block.rows; ++row) {
    kernels.split_row(block.values + row * block.stride, block.cols, scratch.rows[row],
                      scratch.ranks.data() + std::size_t{row} * row_steps * kLanes,
                      out + std::size_t{row} * row_steps * kStepSuffixBytes);
  }
  States states = final_states(out, steps);
  std::uint16_t* const words_end = scratch.words.data() + scratch.words.size();
  std::uint16_t* words = words_end;
  for (std::uint32_t row = block.rows; row-- > 0;) {
    if (row < block.next_rows) prefetch(std::as_bytes(std::span(block.next + row * block.stride, block.next_cols)));
    words = kernels.encode_row(scratch.ranks.data() + std::size_t{row} * row_steps * kLanes, row_steps,
                               *scratch.rows[row].table, states, words);
  }

  std::byte* const escapes = write_states(states, out + suffix_plane_bytes(steps));
  std::byte* at = write_escapes(block, scratch, escapes);
  const auto escape_count = static_cast<std::uint16_t>(static_cast<std::size_t>(at - escapes) / kEscapeBytes);
  const auto words_bytes = static_cast<std::size_t>(words_end - words) * sizeof(std::uint16_t);
  std::memcpy(at, words, words_bytes);
  at += words_bytes;
  if ((at - out) % kStartUnit != 0) {
    store(at, std::uint16_t{0});
    at += sizeof(std::uint16_t);
  }
  return {static_cast<std::uint32_t>(at - out), escape_count};
}

}  // namespace unweight::codec::distribution
