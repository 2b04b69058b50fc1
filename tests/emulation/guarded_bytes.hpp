// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace unweight::test {

/// Bytes as device memory would hold them, aligned to 128, right in front of a page that nobody may touch: whoever
/// reads or writes beyond them ends the program. The page before is guarded, too.
class GuardedBytes {
 public:
  explicit GuardedBytes(std::size_t size_bytes) : size_bytes_(size_bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inside = (size_bytes + page - 1) / page * page;
    mapped_bytes_ = inside + 2 * page;
    void* mapped = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::runtime_error("mmap");
    mapped_ = static_cast<std::byte*>(mapped);
    if (inside != 0 && mprotect(mapped_ + page, inside, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("mprotect");
    }
    data_ = mapped_ + page + inside - (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  explicit GuardedBytes(std::span<const std::byte> bytes) : GuardedBytes(bytes.size()) {
    if (!bytes.empty()) std::memcpy(data_, bytes.data(), bytes.size());
  }
  GuardedBytes(GuardedBytes&& other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)),
        mapped_bytes_(other.mapped_bytes_),
        data_(other.data_),
        size_bytes_(other.size_bytes_) {}
  GuardedBytes& operator=(GuardedBytes&&) = delete;
  ~GuardedBytes() {
    if (mapped_ != nullptr) munmap(mapped_, mapped_bytes_);
  }

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] std::span<std::byte> bytes() const { return {data_, size_bytes_}; }
  template <class T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  static constexpr std::size_t kAlignment = 128;
  std::byte* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::byte* data_ = nullptr;
  std::size_t size_bytes_;
};

}  // namespace unweight::test
