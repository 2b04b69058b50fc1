// SPDX-License-Identifier: Apache-2.0
//
// XXH3-64 of bytes that come in pieces.
#pragma once

#include <codec/checksum.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace unweight::io {

class Xxh3Stream {
 public:
  Xxh3Stream() noexcept { XXH3_64bits_reset(&state_); }
  void update(std::span<const std::byte> bytes) noexcept { XXH3_64bits_update(&state_, bytes.data(), bytes.size()); }
  [[nodiscard]] std::uint64_t digest() const noexcept { return XXH3_64bits_digest(&state_); }

 private:
  XXH3_state_t state_;
};

}  // namespace unweight::io
