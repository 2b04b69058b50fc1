// SPDX-License-Identifier: Apache-2.0
//
// A strip is 16 rows of one matrix (fewer at its end): the unit of work for encoding, decoding and content checksums.
#pragma once

#include <algorithm>
#include <codec/tile_kernels.hpp>
#include <cstdint>
#include <format/layout.hpp>
#include <span>
#include <unweight/blob.hpp>

namespace unweight::codec {

/// Numbers the strips of a tensor through all its matrices.
struct Strips {
  MatrixShape shape;
  std::uint64_t per_matrix = format::ceil_div(shape.rows, format::kTileRows);

  explicit Strips(const MatrixShape& s) : shape(s) {}

  [[nodiscard]] std::uint64_t count() const noexcept { return shape.cols == 0 ? 0 : shape.batch * per_matrix; }
  /// First row of the strip in the tensor seen as one matrix of batch * rows rows.
  [[nodiscard]] std::uint64_t row_begin(std::uint64_t strip) const noexcept {
    return strip / per_matrix * shape.rows + strip % per_matrix * format::kTileRows;
  }
  /// Rows of the strip that belong to the tensor: 1 to 16.
  [[nodiscard]] std::uint32_t rows(std::uint64_t strip) const noexcept {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(format::kTileRows, shape.rows - strip % per_matrix * format::kTileRows));
  }
  /// The strip's values within those of the whole tensor.
  template <class T>
  [[nodiscard]] std::span<T> values(std::span<T> tensor, std::uint64_t strip) const noexcept {
    return tensor.subspan(static_cast<std::size_t>(row_begin(strip) * shape.cols),
                          static_cast<std::size_t>(rows(strip) * shape.cols));
  }
};

/// Strips that make a chunk of about a megabyte of values: worth a thread's attention, small enough for its L2 cache.
[[nodiscard]] inline std::uint64_t strips_per_chunk(const MatrixShape& shape) noexcept {
  constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << 20;
  return std::max<std::uint64_t>(1, kChunkBytes / (2 * format::kTileRows * std::max<std::uint64_t>(1, shape.cols)));
}

/// What follows `part` in `whole`.
template <class T, class Part>
[[nodiscard]] std::span<T> after(std::span<T> whole, std::span<Part> part) noexcept {
  return whole.subspan(static_cast<std::size_t>(part.data() + part.size() - whole.data()));
}

/// Brings bytes to the L2 cache.
inline void prefetch(std::span<const std::byte> bytes) noexcept {
  constexpr std::size_t kLineBytes = 64;
  constexpr int kRead = 0, kL2 = 2;
  for (std::size_t i = 0; i < bytes.size(); i += kLineBytes) __builtin_prefetch(bytes.data() + i, kRead, kL2);
  __asm__ volatile("");  // g++ takes a function that only prefetches for one without effects, and drops its calls
}

[[nodiscard]] inline std::uint64_t strip_checksum(const TileKernels& kernels, std::span<const std::uint16_t> values) {
  return kernels.xxh3(values.data(), values.size_bytes());
}

}  // namespace unweight::codec
