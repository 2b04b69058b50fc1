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

/// In shared memory, aligned to 16. In the order of positions, so that a value's place needs no arithmetic.
struct TilePatch {
  /// Of a half's 16 values of a lane: where their exponents come from, 4 bits a value. 0 to 3: the look-up's byte, 4 to 7:
  /// the exception of that number less 4.
  uint2 selectors[2][kLanes];
  /// Rotated exponents of a lane's exceptions in a half, a byte each.
  std::uint32_t exceptions[2][kLanes];

  /// By a warp: no exceptions.
  __device__ void clear(std::uint32_t lane) { fill(lane, 0x32103210U); }
  /// By a warp: all exponents are 0.
  __device__ void erase(std::uint32_t lane) {
    fill(lane, 0x44444444U);
    exceptions[0][lane] = exceptions[1][lane] = 0;
  }

 private:
  __device__ void fill(std::uint32_t lane, std::uint32_t eight_selectors) {
    reinterpret_cast<uint4*>(selectors)[lane] =
        make_uint4(eight_selectors, eight_selectors, eight_selectors, eight_selectors);
  }
};
static_assert(sizeof(TilePatch) == 768);

/// A lane's part.
struct LanePatch {
  std::uint32_t selectors[4];
  std::uint32_t exceptions[2];

  static UNWEIGHT_HOST_DEVICE LanePatch of(const TilePatch& patch, std::uint32_t lane) {
    const uint2 low = patch.selectors[0][lane], high = patch.selectors[1][lane];
    return {{low.x, low.y, high.x, high.y}, {patch.exceptions[0][lane], patch.exceptions[1][lane]}};
  }

  /// The exponents of a group.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t apply(std::uint32_t looked_up, std::uint32_t group) const {
    return byte_permute(looked_up, exceptions[group / 4], selectors[group / 2] >> 16 * (group & 1));
  }
};

/// What a lane writes for its unit of a list of up to 32: a byte of the selectors, an exponent. No branches: what is not
/// to be written goes to a place where it does no harm.
struct PatchEntry {
  std::uint32_t selector_at, exponent_at;  ///< bytes from the patch's begin
  std::uint32_t selector, exponent;        ///< lowest byte
  bool has_selector;                       ///< otherwise another lane writes the byte, for a value that shares it
  bool has_exponent;

  /// @param nowhere  a byte that nobody reads
  __device__ void write(TilePatch& patch, std::uint8_t* nowhere) const {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&patch);
    *(has_exponent ? bytes + exponent_at : nowhere) = static_cast<std::uint8_t>(exponent);
    *(has_selector ? bytes + selector_at : nowhere) = static_cast<std::uint8_t>(selector);
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
  const bool exists = lane < count;
  const std::uint32_t position = unit & (format::kTileValues - 1);
  const std::uint32_t change = position ^ __shfl_up_sync(kAllLanes, position, 1);  // from the entry before
  // Among the exceptions of a lane's half, which are neighbours: the entries since its first.
  const std::uint32_t firsts = __ballot_sync(kAllLanes, change > 15) | 1;
  const std::uint32_t rank = lane - highest_one(firsts & ((2U << lane) - 1));
  // Two values share a byte of selectors. If both are exceptions their entries are neighbours, too.
  const bool with_previous = change == 1;
  const std::uint32_t pairs = __ballot_sync(kAllLanes, with_previous && exists);
  const std::uint32_t index = unit >> 10, value = index == 0 ? 0 : index + base;
  unusual = __any_sync(kAllLanes, exists && (rank >= kPatchRoom || index == format::kExtendedIndex)) != 0;
  const std::uint32_t mine = 4 + rank, neighbour = (pairs & 2U << lane) != 0 ? mine + 1 : (position & 3) ^ 1;
  const std::uint32_t shift = 4 * (position & 1);
  PatchEntry entry;
  entry.has_exponent = exists && !unusual;
  entry.has_selector = entry.has_exponent && !with_previous;
  entry.selector_at = position >> 1;
  entry.exponent_at = kExceptionsAt + (position >> 2 & ~3U) + (rank & 3);
  entry.selector = mine << shift | neighbour << (shift ^ 4);
  entry.exponent = value * 0x101 >> 1;  // rotated
  return entry;
}

}  // namespace unweight::device
