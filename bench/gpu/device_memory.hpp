// SPDX-License-Identifier: Apache-2.0
//
// Device memory, and the copies of one operand that launches take in turn, so that none finds its bytes in a cache.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace unweight::bench {

/// At least this much is moved between two uses of the same bytes: many times the L2 cache.
inline constexpr std::size_t kRotatedBytes = 400'000'000;

struct FreeDevice {
  void operator()(void* memory) const;
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;

[[nodiscard]] DeviceMemory allocate(std::size_t bytes);

void download_bytes(const DeviceMemory& memory, void* to, std::size_t bytes);

/// The first `count` elements.
template <class T>
[[nodiscard]] std::vector<T> download(const DeviceMemory& memory, std::size_t count) {
  std::vector<T> host(count);
  download_bytes(memory, host.data(), count * sizeof(T));
  return host;
}

/// How many buffers of that size have to take turns: at least two.
[[nodiscard]] std::size_t rotation_count(std::size_t bytes);

/// `count` copies of `bytes` in device memory. Crosses the bus once.
[[nodiscard]] std::vector<DeviceMemory> upload_copies(std::span<const std::byte> bytes, std::size_t count);

}  // namespace unweight::bench
