// SPDX-License-Identifier: Apache-2.0
//
// XXH3-64, alone and chunked. A chunked checksum is the XXH3-64 of the little-endian XXH3-64s of consecutive chunks:
// chunks can be hashed by many threads, or while they are still in cache.
#pragma once

#define XXH_INLINE_ALL
#include <cstddef>
#include <cstdint>
#include <span>
#include <xxhash.h>

namespace unweight::codec {

// The functions are static: this header is compiled for several instruction sets, and the linker must not merge them.

inline constexpr std::uint64_t kPayloadChunkBytes = std::uint64_t{1} << 20;

[[nodiscard]] static inline std::uint64_t xxh3(std::span<const std::byte> bytes) noexcept {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// The checksum of a sequence of chunk checksums.
[[nodiscard]] static inline std::uint64_t combine_chunks(std::span<const std::uint64_t> chunks) noexcept {
  return XXH3_64bits(chunks.data(), chunks.size_bytes());
}

}  // namespace unweight::codec
