// SPDX-License-Identifier: Apache-2.0
//
// A warp's A operands from a tile in shared memory. Exceptions take a detour of 1 KiB of shared memory, which is the
// warp's own: exponents by position, a byte each. A lane stores its 32, any lane changes the byte that its entry names,
// and the lane loads its 32 again. Sign and mantissa stay in registers meanwhile.
#pragma once

#include <cstdint>
#include <cuda/device/list_step.cuh>
#include <cuda/device/tile_decode.cuh>
#include <format/bf16.hpp>
#include <format/layout.hpp>

namespace unweight::device {

/// A operands of mma.m16n8k16 for the four steps of 16 columns of a tile.
struct TileFragments {
  std::uint32_t a[4][4];
};

/// A tile's exceptions: `count` units in shared or global memory.
struct ExceptionList {
  const std::uint16_t* units;
  std::uint32_t count;
  std::uint8_t base;  ///< the blob's exception_base
};

/// Decodes tiles for one warp, all of whose lanes take part in every call.
struct FragmentDecoder {
  std::uint8_t* exponents;  ///< the warp's 1024 bytes of shared memory, aligned to 16
  std::uint32_t lane;

  /// @param tile  1408 bytes of shared memory, aligned to 128
  __device__ TileFragments decode(const std::byte* tile, const LanePalettes& palettes,
                                  const ExceptionList& list) const {
    const std::uint16_t first = lane < list.count ? list.units[lane] : std::uint16_t{0};
    const uint2 codes01 = reinterpret_cast<const uint2*>(tile + format::kCodes01Offset)[lane];
    const std::uint32_t codes2 = reinterpret_cast<const std::uint32_t*>(tile + format::kCodes2Offset)[lane];
    const uint4 sm0 = reinterpret_cast<const uint4*>(tile)[lane];
    const uint4 sm1 = reinterpret_cast<const uint4*>(tile)[kLanes + lane];
    const LaneSelectors selectors = unpack_selectors({codes01.x, codes01.y, codes2});
    std::uint32_t rotated[kLaneGroups];
    UNWEIGHT_UNROLL
    for (std::uint32_t g = 0; g < kLaneGroups; ++g) rotated[g] = look_up_group(palettes, selectors, g);
    if (list.count == format::kEscapedTileUnits) {
      load_plane(list.units, lane, rotated);
    } else if (list.count != 0) {
      auto* plane = reinterpret_cast<uint4*>(exponents);
      plane[lane] = make_uint4(rotated[0], rotated[1], rotated[2], rotated[3]);
      plane[kLanes + lane] = make_uint4(rotated[4], rotated[5], rotated[6], rotated[7]);
      __syncwarp();
      patch(first, list);
      __syncwarp();
      const uint4 low = plane[lane], high = plane[kLanes + lane];
      rotated[0] = low.x, rotated[1] = low.y, rotated[2] = low.z, rotated[3] = low.w;
      rotated[4] = high.x, rotated[5] = high.y, rotated[6] = high.z, rotated[7] = high.w;
    }
    const LaneValues values = decode_escaped_lane({sm0.x, sm0.y, sm0.z, sm0.w, sm1.x, sm1.y, sm1.z, sm1.w}, rotated);
    TileFragments fragments;
    UNWEIGHT_UNROLL
    for (std::uint32_t s = 0; s < 4; ++s) {
      fragments.a[s][0] = values.pairs[4 * s];
      fragments.a[s][1] = values.pairs[4 * s + 2];
      fragments.a[s][2] = values.pairs[4 * s + 1];
      fragments.a[s][3] = values.pairs[4 * s + 3];
    }
    return fragments;
  }

 private:
  /// Puts in the exceptions of a list, 32 units at a time; `unit` is the lane's of the first 32.
  __device__ void patch(std::uint16_t unit, const ExceptionList& list) const {
    for (std::uint32_t left = list.count;;) {
      const ListStep step = read_list_step(unit, left, lane, list.base);
      if (step.has_entry) exponents[format::entry_position(unit)] = format::rotate_exponent(step.exponent);
      if (left <= step.units_read) return;
      left -= step.units_read;
      if (lane < left) unit = list.units[list.count - left + lane];
    }
  }
};

}  // namespace unweight::device
