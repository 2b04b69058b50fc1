// SPDX-License-Identifier: Apache-2.0
//
// A tile's exceptions in a form that needs no detour through memory: one more byte permute for each group of four
// values puts them in place, in registers. A warp that does not multiply prepares that form from the list, so that those
// that do have nothing to wait for.
//
//   exponents of a group = PRMT(looked-up exponents, the lane's exceptions, selector)
//
// A lane has 16 values in each half of a tile, 1.3 of 100 of which are exceptions in trained weights. Four of them have
// room; a list with more for one lane, or with more than 32 units, or an extended entry, is *unusual*: whoever decodes
// the tile reads it itself (FragmentDecoder).
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/exception_list.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>
#include <vector_types.h>

namespace unweight::device {

/// Exceptions that a lane has room for in each half of a tile.
inline constexpr std::uint32_t kPatchRoom = 4;

/// In shared memory, aligned to 16.
struct TilePatch {
  /// Of a lane: where its 32 values' exponents come from, 4 bits a value in their order. 0 to 3: the look-up's byte,
  /// 4 to 7: the exception of that number less 4.
  uint4 selectors[kLanes];
  /// Of a lane: rotated exponents of its exceptions in the first and in the second half, a byte each.
  uint2 exceptions[kLanes];
};
static_assert(sizeof(TilePatch) == 768);

inline constexpr std::uint32_t kNoException = 0x32103210U;      ///< selectors of eight values as they were looked up
inline constexpr std::uint32_t kAllFirstException = 0x44444444U;  ///< all of them the first exception

/// A lane's part.
struct LanePatch {
  std::uint32_t selectors[4];
  std::uint32_t exceptions[2];

  static UNWEIGHT_HOST_DEVICE LanePatch of(const TilePatch& patch, std::uint32_t lane) {
    const uint4 s = patch.selectors[lane];
    const uint2 e = patch.exceptions[lane];
    return {{s.x, s.y, s.z, s.w}, {e.x, e.y}};
  }

  /// The exponents of a group.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t apply(std::uint32_t looked_up, std::uint32_t group) const {
    return byte_permute(looked_up, exceptions[group / 4], selectors[group / 2] >> 16 * (group & 1));
  }
};

/// What a lane writes for its unit of a list of up to 32: a byte of the selectors, an exponent.
struct PatchEntry {
  bool exists;
  bool has_selector;  ///< otherwise another lane's unit is of the same byte, and that lane writes it
  bool fits;          ///< the lane that has the value has room for its exception
  std::uint8_t selector, exponent;
  std::uint32_t selector_at, exponent_at;  ///< bytes from the patch's begin

  __device__ void write(TilePatch& patch) const {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&patch);
    if (exists) bytes[exponent_at] = exponent;
    if (has_selector) bytes[selector_at] = selector;
  }
};

/// The lane's entry. By a whole warp. No place lies outside the patch, whatever the list holds.
/// @param unit   the lane's unit, where lane < count; positions ascend
/// @param count  units of the list, up to 32
/// @param base   the blob's exception_base
__device__ inline PatchEntry make_patch_entry(std::uint32_t unit, std::uint32_t count, std::uint32_t lane,
                                              std::uint8_t base) {
  constexpr std::uint32_t kExceptionsAt = static_cast<std::uint32_t>(sizeof(TilePatch::selectors));
  constexpr std::uint32_t kNowhere = 0xffffU, kHalfBits = 4;  // a lane's values in a half are neighbours
  const auto entry = static_cast<std::uint16_t>(unit);
  const bool exists = lane < count;
  const std::uint32_t position = exists ? format::entry_position(entry) : kNowhere, owner = position >> kHalfBits;
  std::uint32_t before[kPatchRoom];
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i < kPatchRoom; ++i) before[i] = __shfl_up_sync(kAllLanes, position, i + 1);
  const std::uint32_t next = __shfl_down_sync(kAllLanes, position, 1);
  std::uint32_t rank = 0;  // among the owner's exceptions of this half
  UNWEIGHT_UNROLL
  for (std::uint32_t i = 0; i + 1 < kPatchRoom; ++i) rank += lane > i && before[i] >> kHalfBits == owner ? 1 : 0;
  const bool full = lane >= kPatchRoom && before[kPatchRoom - 1] >> kHalfBits == owner;
  const std::uint32_t odd = position & 1, mine = 4 + rank, neighbour = (position & 3) ^ 1;
  // Two values share a byte of selectors. If both are exceptions their lanes are neighbours, too.
  const bool with_next = odd == 0 && next == position + 1;
  const bool with_previous = odd == 1 && lane != 0 && before[0] == position - 1;
  const std::uint32_t low = odd == 0 ? mine : neighbour;
  const std::uint32_t high = odd == 1 ? mine : with_next ? mine + 1 : neighbour;
  const std::uint32_t half = position >> 9 & 1, lane_of = owner & 31;
  PatchEntry result{};
  result.exists = exists;
  result.has_selector = exists && !with_previous;
  result.fits = !exists || !full;
  result.selector = static_cast<std::uint8_t>(low | high << 4);
  result.exponent = format::rotate_exponent(format::entry_exponent(entry, base));
  result.selector_at = lane_of * 16 + half * 8 + (position >> 1 & 7);
  result.exponent_at = kExceptionsAt + lane_of * 8 + half * 4 + rank;
  return result;
}

}  // namespace unweight::device
