// SPDX-License-Identifier: Apache-2.0
//
// Memory for tensors: not cleared, and given back to the system as soon as it is freed. The allocator would keep parts
// of freed tensors per thread, beyond what the memory budget knows of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace unweight::io {

class Buffer {
 public:
  Buffer() = default;
  /// Throws bad_alloc.
  explicit Buffer(std::uint64_t size_bytes);
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(); }

  [[nodiscard]] std::size_t size_bytes() const noexcept { return size_bytes_; }
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return {data_, size_bytes_}; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_bytes_}; }
  /// The memory as bfloat16 values.
  [[nodiscard]] std::span<std::uint16_t> values() noexcept {
    return {reinterpret_cast<std::uint16_t*>(data_), size_bytes_ / 2};
  }
  [[nodiscard]] std::span<const std::uint16_t> values() const noexcept {
    return {reinterpret_cast<const std::uint16_t*>(data_), size_bytes_ / 2};
  }

 private:
  void free() noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

}  // namespace unweight::io
