// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <codec/open.hpp>
#include <cstring>
#include <cuda/launch/placed_blob.hpp>
#include <span>
#include <stdexcept>
#include <vector>

namespace unweight::test {

/// A blob at an address that a device would give.
class HostBlob {
 public:
  explicit HostBlob(const std::vector<std::byte>& bytes) : bytes_(bytes.size() / 128) {
    std::memcpy(bytes_.data(), bytes.data(), bytes.size());
    const auto view = codec::open_blob(bytes);
    if (!view) throw std::runtime_error(view.error().message);
    const format::Header& header = view->header();
    placed = {{header.batch, header.rows, header.cols},
              static_cast<BlobLayout>(header.layout),
              header.palette_count,
              header.exception_base,
              reinterpret_cast<const std::byte*>(bytes_.data())};
  }
  static HostBlob encoded(std::span<const std::uint16_t> values, const MatrixShape& shape) {
    return HostBlob(encode(values, shape).value());
  }

  launch::PlacedBlob placed{};

 private:
  struct alignas(128) Block {
    std::array<std::byte, 128> bytes;
  };
  std::vector<Block> bytes_;
};

}  // namespace unweight::test
