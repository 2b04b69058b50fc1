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

/// What a lane writes for its unit of a list of up to 32: a byte of the selectors, an exponent. Few registers, since a
/// warp has it ready before there is room for it.
struct PatchEntry {
  std::uint32_t places;  ///< bytes from the patch's begin: of the selectors' byte; above kHalf of the exponent
  std::uint32_t values;  ///< likewise
  bool has_exponent;
  bool has_selector;  ///< otherwise another lane's unit is of the same byte, and that lane writes it
  static constexpr std::uint32_t kHalf = 16;

  __device__ void write(TilePatch& patch) const {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&patch);
    if (has_exponent) bytes[places >> kHalf] = static_cast<std::uint8_t>(values >> kHalf);
    if (has_selector) bytes[places & 0xffffU] = static_cast<std::uint8_t>(values);
  }
};

/// The lane's entry, if all entries of the list have room and none is extended: otherwise none has one. By a whole warp.
/// No place lies outside the patch, whatever the list holds.
/// @param unit     the lane's unit, where lane < count; positions ascend
/// @param count    units of the list, up to 32
/// @param base     the blob's exception_base
/// @param unusual  set where the list has no room
__device__ inline PatchEntry make_patch_entry(std::uint32_t unit, std::uint32_t count, std::uint32_t lane,
                                              std::uint8_t base, bool& unusual) {
  constexpr std::uint32_t kExceptionsAt = static_cast<std::uint32_t>(sizeof(TilePatch::selectors));
  constexpr std::uint32_t kNowhere = 0xffffU, kHalfBits = 4;  // a lane's values in a half are neighbours
  const bool exists = lane < count;
  const std::uint32_t position = exists ? unit & (format::kTileValues - 1) : kNowhere, owner = position >> kHalfBits;
  const std::uint32_t before = __shfl_up_sync(kAllLanes, position, 1), previous = lane == 0 ? kNowhere : before;
  // Among the owner's exceptions of this half, which are neighbours: the lanes since its first.
  const std::uint32_t firsts = __ballot_sync(kAllLanes, lane == 0 || previous >> kHalfBits != owner);
  const std::uint32_t rank = lane - highest_one(firsts & ((2U << lane) - 1));
  // Two values share a byte of selectors. If both are exceptions their lanes are neighbours, too.
  const bool odd = (position & 1) != 0, with_previous = odd && previous + 1 == position;
  const bool with_next = (__ballot_sync(kAllLanes, with_previous) >> 1 >> lane & 1) != 0;
  const std::uint32_t index = unit >> 10, exponent = index == 0 ? 0 : index + base;
  unusual = __any_sync(kAllLanes, exists && (rank >= kPatchRoom || index == format::kExtendedIndex)) != 0;
  const std::uint32_t mine = 4 + rank, neighbour = with_next ? mine + 1 : (position & 3) ^ 1;
  const std::uint32_t lane_of = owner & 31, half = position >> 9 & 1;
  PatchEntry entry;
  entry.has_exponent = exists && !unusual;
  entry.has_selector = entry.has_exponent && !with_previous;
  entry.places = lane_of * (16 | 8U << PatchEntry::kHalf) + half * (8 | 4U << PatchEntry::kHalf) +
                 (position >> 1 & 7) + ((kExceptionsAt + (rank & 3)) << PatchEntry::kHalf);
  entry.values = (odd ? neighbour | mine << 4 : mine | neighbour << 4) |
                 (exponent >> 1 | exponent << 7) << PatchEntry::kHalf;
  return entry;
}

}  // namespace unweight::device
