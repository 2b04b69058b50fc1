// SPDX-License-Identifier: Apache-2.0
//
// The inner loops of the quick CPU codec: one table of functions, a scalar and an AVX2 implementation that produce the
// same bytes, chosen once at run time. They know nothing of blobs: they take addresses of whole, full tiles.
#pragma once

#include <array>
#include <codec/palette.hpp>
#include <cstddef>
#include <cstdint>
#include <format/layout.hpp>
#include <vector>

namespace unweight::codec {

/// The 16 palettes of a strip's rows, as the tile functions want them.
struct StripPalettes {
  /// rotated[row] is the row's palette with its exponents rotated, as in the blob.
  std::array<std::array<std::uint8_t, format::kPaletteSize>, format::kTileRows> rotated{};
  /// plain[row] holds the same exponents unrotated, ascending.
  std::array<Palette, format::kTileRows> plain{};
};

/// Room for the exceptions of a tile, and for a few more that a quick encoder writes in advance.
using TileExceptions = std::array<std::uint32_t, format::kTileValues + 4>;

struct TileKernels {
  const char* name;

  /// XXH3-64, which gains from wide registers too.
  std::uint64_t (*xxh3)(const void* bytes, std::size_t size);

  /// best_palette() of palette.hpp.
  Palette (*choose_palette)(const std::uint16_t* values, std::size_t count);

  /// Encodes 16 rows x 64 values, rows `stride` values apart: writes the kTileBytes of `tile` (any alignment) and lists
  /// the values whose exponent is not in their row's palette, as position | exponent << 16, positions ascending.
  /// Returns how many there are; `exceptions` has the room of TileExceptions.
  std::uint32_t (*encode)(const std::uint16_t* values, std::size_t stride, const StripPalettes& palettes,
                          std::byte* tile, std::uint32_t* exceptions);

  /// Decodes a tile, as though it had no exceptions, into 16 rows x 64 values, rows `stride` values apart.
  void (*decode)(const std::byte* tile, const StripPalettes& palettes, std::uint16_t* values, std::size_t stride);
};

/// Portable implementation.
[[nodiscard]] const TileKernels& scalar_tile_kernels() noexcept;

/// The best implementation that this CPU runs; the environment variable UNWEIGHT_CPU=scalar forces the portable one.
[[nodiscard]] const TileKernels& tile_kernels() noexcept;

/// Every implementation that this CPU runs, the portable one first: for tests and benchmarks.
[[nodiscard]] std::vector<const TileKernels*> available_tile_kernels();

#if defined(UNWEIGHT_HAVE_AVX2)
/// To be called only where the CPU has AVX2 and BMI2.
[[nodiscard]] const TileKernels& avx2_tile_kernels() noexcept;
#endif

}  // namespace unweight::codec
