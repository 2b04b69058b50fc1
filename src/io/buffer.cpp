// SPDX-License-Identifier: Apache-2.0
#include <io/buffer.hpp>
#include <new>
#include <sys/mman.h>

namespace unweight::io {
namespace {

/// Smaller blocks come from the allocator.
constexpr std::size_t kMinMappedBytes = std::size_t{1} << 20;

}  // namespace

Buffer::Buffer(std::uint64_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes < kMinMappedBytes) {
    data_ = static_cast<std::byte*>(::operator new(size_bytes));
    return;
  }
  void* mapped = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(mapped);
}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    free();
    data_ = std::exchange(other.data_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
  }
  return *this;
}

void Buffer::free() noexcept {
  if (data_ == nullptr) return;
  if (size_bytes_ < kMinMappedBytes) {
    ::operator delete(data_);
  } else {
    ::munmap(data_, size_bytes_);
  }
  data_ = nullptr;
}

}  // namespace unweight::io
