// SPDX-License-Identifier: Apache-2.0
//
// A validated blob and the address it lies at: what launchers and kernels need to know of it. Host code without CUDA,
// so that tests on the CPU can give a kernel what its launcher gives it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <format/layout.hpp>
#include <unweight/blob.hpp>
#include <unweight/cuda.hpp>

namespace unweight::launch {

struct PlacedBlob {
  MatrixShape shape;
  BlobLayout layout;
  std::uint32_t palette_count;
  std::uint8_t exception_base;
  const std::byte* data;

  /// Of a tiled blob.
  [[nodiscard]] format::TiledGeometry geometry() const {
    return format::tiled_geometry(shape.batch, shape.rows, shape.cols, palette_count);
  }
  template <class T>
  [[nodiscard]] const T* section(std::uint64_t offset) const {
    return reinterpret_cast<const T*>(data + offset);
  }
};

inline PlacedBlob placed(const DeviceBlob& blob) {
  return {blob.shape(), blob.layout(), blob.palette_count(), blob.exception_base(), blob.data()};
}

inline bool is_aligned(const void* address, std::uint64_t alignment) {
  return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

}  // namespace unweight::launch
