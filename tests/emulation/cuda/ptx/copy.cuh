// SPDX-License-Identifier: Apache-2.0
//
// The emulated twin of src/cuda/ptx/copy.cuh.
#pragma once

#include "emulation/emulator.hpp"
#include <cstring>
#include <cuda.h>
#include <stdexcept>

namespace unweight::ptx {

inline std::uint64_t evict_first_policy() { return 0; }

inline void require_aligned(const void* address, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0 || bytes % 16 != 0) {
    throw std::runtime_error("emulation: a copy that is not aligned to 16 bytes");
  }
}

/// What a tensor copy does when it is done.
inline auto tensor_copy_work(std::uint32_t to, const CUtensorMap* map, std::uint32_t row, std::uint32_t tile) {
  return [=, box = *map] {
    for (std::uint32_t i = 0; i < box.box_tiles * box.box_rows * 64; ++i) {
      const std::uint32_t col = i % 64, line = i / 64;
      const std::uint64_t r = row + line % box.box_rows;
      const std::uint64_t c = 64 * std::uint64_t{tile + line / box.box_rows} + col;
      const std::uint16_t value = r < box.rows && c < box.cols ? box.values[r * box.stride + c] : std::uint16_t{0};
      const std::uint32_t at = to + line * 128 + ((col / 8 ^ line % 8) * 16) + col % 8 * 2;
      std::memcpy(emulation::shared_memory() + at, &value, sizeof value);
    }
  };
}

/// The bytes of a box, after checks.
inline std::uint32_t tensor_copy_bytes(std::uint32_t to, const CUtensorMap* map) {
  require_aligned(map->values, map->stride * sizeof *map->values);
  if (map->cols % 64 != 0) throw std::runtime_error("emulation: a tensor copy of a matrix of half tiles");
  const std::uint32_t bytes = map->box_tiles * map->box_rows * 128;
  (void)emulation::shared_range(to, bytes, 1024);  // the swizzle's pattern repeats every 1 KiB
  return bytes;
}

inline void tensor_copy(std::uint32_t to, const CUtensorMap* map, std::uint32_t row, std::uint32_t tile,
                        std::uint32_t barrier) {
  emulation::copy_later(to, tensor_copy_bytes(to, map), barrier, tensor_copy_work(to, map, row, tile));
}

inline void tensor_copy_to_blocks(std::uint32_t to, const CUtensorMap* map, std::uint32_t row, std::uint32_t tile,
                                  std::uint32_t barrier, std::uint32_t ranks) {
  for (std::uint32_t rank = 0; ranks >> rank != 0; ++rank) {
    if ((ranks >> rank & 1) == 0) continue;
    emulation::copy_later_to(rank, to, tensor_copy_bytes(to, map), barrier, tensor_copy_work(to, map, row, tile));
  }
}

inline void tile_copy(std::uint32_t to, const CUtensorMap* map, std::uint32_t column, std::uint32_t strip,
                      std::uint32_t barrier, std::uint64_t) {
  constexpr std::uint32_t kTileBytes = 1408;
  require_aligned(map->tiles, kTileBytes);
  const std::uint32_t bytes = map->box_strips * map->box_tiles * kTileBytes;
  (void)emulation::shared_range(to, bytes, 128);
  emulation::copy_later(to, bytes, barrier, [=, box = *map] {
    for (std::uint32_t i = 0; i < box.box_strips * box.box_tiles; ++i) {
      const std::uint64_t s = strip + i / box.box_tiles, t = column + i % box.box_tiles;
      std::byte* tile = emulation::shared_memory() + to + i * kTileBytes;
      if (s < box.strips && t < box.tiles_per_strip) {
        std::memcpy(tile, box.tiles + (s * box.tiles_per_strip + t) * kTileBytes, kTileBytes);
      } else {
        std::memset(tile, 0, kTileBytes);
      }
    }
  });
}

inline void prefetch_tensor_map(const CUtensorMap*) {}

inline void copy_async16(std::uint32_t to, const void* from) {
  require_aligned(from, 16);
  emulation::thread_copy_later(to, 16, [=] { std::memcpy(emulation::shared_memory() + to, from, 16); });
}

inline void wait_for_async_copies() { emulation::wait_for_copies(); }

inline void prefetch_l2_sector(const void*) {}

}  // namespace unweight::ptx
