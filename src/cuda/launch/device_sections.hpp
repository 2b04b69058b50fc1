// SPDX-License-Identifier: Apache-2.0
//
// Addresses: sections of a blob in device memory, and alignment.
#pragma once

#include <cstdint>
#include <unweight/cuda.hpp>

namespace unweight::launch {

template <class T>
const T* section(const DeviceBlob& blob, std::uint64_t offset) {
  return reinterpret_cast<const T*>(blob.data() + offset);
}

inline bool is_aligned(const void* address, std::uint64_t alignment) {
  return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

}  // namespace unweight::launch
