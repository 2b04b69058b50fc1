// SPDX-License-Identifier: Apache-2.0
//
// A warp's A operands from a tile in shared memory. Exceptions take a detour of 1 KiB of shared memory, which is the
// warp's own: exponents by position, a byte each. A lane stores its 32, any lane changes the byte that its entry names,
// and the lane loads its 32 again. Sign and mantissa stay in registers meanwhile.
#pragma once

#include <cstdint>
#include <cuda/device/list_step.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/ptx/registers.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

/// A operands of mma.m16n8k16 for the four steps of 16 columns of a tile.
struct TileFragments {
  std::uint32_t a[4][4];

  /// A word of each of the four loads that bring a tile of raw values, in one.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE std::uint32_t loaded() const { return a[0][0] ^ a[1][0] ^ a[2][0] ^ a[3][0]; }
};

/// A lane's part of a tile, but for the order of its bytes.
struct TileBytes {
  GroupBytes groups[kLaneGroups];

  [[nodiscard]] __device__ TileFragments interleave() const {
    TileFragments fragments;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) {
      fragments.a[s][0] = groups[2 * s].first_pair();
      fragments.a[s][1] = groups[2 * s + 1].first_pair();
      fragments.a[s][2] = groups[2 * s].second_pair();
      fragments.a[s][3] = groups[2 * s + 1].second_pair();
    }
    return fragments;
  }
};

/// A lane's part of a tile, exceptions in place: sign and mantissa, and exponents. join() is what remains to be done.
struct TileParts {
  std::uint32_t sign_mantissa[kLaneGroups];
  std::uint32_t rotated[kLaneGroups];

  [[nodiscard]] __device__ TileBytes bytes() const {
    TileBytes result;
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < kLaneGroups; ++g) result.groups[g] = GroupBytes::of(sign_mantissa[g], rotated[g]);
    return result;
  }

  __device__ void load_sign_mantissa(const std::byte* tile, std::uint32_t lane16) {
    const uint4 low = *reinterpret_cast<const uint4*>(tile + lane16);
    const uint4 high = *reinterpret_cast<const uint4*>(tile + lane16 + 16 * kLanes);
    sign_mantissa[0] = low.x, sign_mantissa[1] = low.y, sign_mantissa[2] = low.z, sign_mantissa[3] = low.w;
    sign_mantissa[4] = high.x, sign_mantissa[5] = high.y, sign_mantissa[6] = high.z, sign_mantissa[7] = high.w;
  }

  [[nodiscard]] __device__ TileFragments join() const { return bytes().interleave(); }

  /// A word of each load from the tile, but for codes and exceptions, whose exponents have been stored.
  [[nodiscard]] __device__ std::uint32_t loaded() const { return sign_mantissa[0] ^ sign_mantissa[4]; }
};

/// Decodes tiles for one warp, all of whose lanes take part in every call.
struct FragmentDecoder {
  const std::byte* shared;          ///< what the places of lists count from
  const std::uint16_t* exceptions;  ///< the blob's units, global memory
  std::uint8_t* exponents;          ///< the warp's 1024 bytes of shared memory, aligned to 16
  std::uint32_t lane;
  std::uint32_t lane16;         ///< 16 * lane, for the compiler to keep
  std::uint8_t exception_base;  ///< the blob's

  /// @param tile  1408 bytes of shared memory, aligned to 128
  /// @param list  of the tile; an absent one: zeros
  __device__ TileParts decode(const std::byte* tile, const LanePalettes& palettes, const ExceptionList& list) const {
    TileParts parts{};
    parts.load_sign_mantissa(tile, lane16);
    const bool unusual = find_exponents(tile, palettes, list, parts.rotated);
    if (__builtin_expect(unusual, 0)) {
      find_unusual_exponents(list, parts.rotated);
      if (list.is_absent()) parts = {};
    }
    return parts;
  }

 private:
  /// The exponents alone, of usual lists: one path without branches, each of which would cost a warp some 25 cycles.
  /// True where the list is not usual, and find_unusual_exponents() is to be called.
  [[nodiscard]] __device__ bool find_exponents(const std::byte* tile, const LanePalettes& palettes,
                                               const ExceptionList& list, std::uint32_t (&rotated)[kLaneGroups]) const {
    const uint2 codes01 = *reinterpret_cast<const uint2*>(tile + format::kCodes01Offset + 8 * lane);
    const std::uint32_t codes2 = *reinterpret_cast<const std::uint32_t*>(tile + format::kCodes2Offset + 4 * lane);
    const bool has_unit = !list.is_unusual() && lane < list.usual_count();
    std::uint16_t unit = 0;
    if (has_unit) unit = reinterpret_cast<const std::uint16_t*>(shared + list.place())[lane];
    const bool extended = __any_sync(kAllLanes, format::entry_is_extended(unit));
    const bool unusual = static_cast<unsigned>(list.is_unusual()) | static_cast<unsigned>(extended);
    std::uint32_t exponent = format::rotate_exponent(format::entry_exponent(unit, exception_base));
    ptx::keep(exponent);  // here, beside the look-ups, and not behind a branch
    const LaneSelectors selectors = unpack_selectors({codes01.x, codes01.y, codes2});
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < kLaneGroups; ++g) rotated[g] = look_up_group(palettes, selectors, g);
    store_plane(rotated);
    __syncwarp();
    if (has_unit && !unusual) put(unit, static_cast<std::uint8_t>(exponent));
    __syncwarp();
    load_own(rotated);
    return unusual;
  }

  /// After find_exponents(), which has put in no exception.
  __device__ void find_unusual_exponents(const ExceptionList& list, std::uint32_t (&rotated)[kLaneGroups]) const {
    if (list.is_absent()) {
      UNWEIGHT_UNROLL
      for (auto& word : rotated) word = 0;
    } else if (list.is_escaped()) {
      load_plane(units_of(list), lane, rotated);
    } else {
      __syncwarp();
      patch_in_steps(list);
      __syncwarp();
      load_own(rotated);
    }
  }

  [[nodiscard]] __device__ const std::uint16_t* units_of(const ExceptionList& list) const {
    return list.place() == 0 ? exceptions + list.begin : reinterpret_cast<const std::uint16_t*>(shared + list.place());
  }

  /// Puts in a list that is unusual or has extended entries, 32 units at a time.
  __device__ void patch_in_steps(const ExceptionList& list) const {
    const std::uint16_t* units = units_of(list);
    for (std::uint32_t at = 0; at < list.count();) {
      const std::uint32_t left = list.count() - at;
      const std::uint16_t unit = lane < left ? units[at + lane] : std::uint16_t{0};
      const ListStep step = read_list_step(unit, left, lane, exception_base);
      if (step.has_entry) put(unit, format::rotate_exponent(step.exponent));
      at += step.units_read;
    }
  }

  __device__ void store_plane(const std::uint32_t (&rotated)[kLaneGroups]) const {
    auto* plane = reinterpret_cast<uint4*>(exponents);
    plane[lane] = make_uint4(rotated[0], rotated[1], rotated[2], rotated[3]);
    plane[kLanes + lane] = make_uint4(rotated[4], rotated[5], rotated[6], rotated[7]);
  }

  __device__ void load_own(std::uint32_t (&rotated)[kLaneGroups]) const {
    const auto* plane = reinterpret_cast<const uint4*>(exponents);
    const uint4 low = plane[lane], high = plane[kLanes + lane];
    rotated[0] = low.x, rotated[1] = low.y, rotated[2] = low.z, rotated[3] = low.w;
    rotated[4] = high.x, rotated[5] = high.y, rotated[6] = high.z, rotated[7] = high.w;
  }

  __device__ void put(std::uint16_t unit, std::uint8_t rotated) const {
    exponents[format::entry_position(unit)] = rotated;
  }
};

}  // namespace unweight::device
