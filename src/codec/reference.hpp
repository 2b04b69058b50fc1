// SPDX-License-Identifier: Apache-2.0
//
// The truth: an encoder and a decoder written like docs/FORMAT.md, one value at a time, with nothing clever in them.
// Every other implementation is tested against them bit for bit. They share constants and the geometry with the quick
// codec, but no algorithm. Not for production: about a hundred times slower.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::codec {

/// `values` has batch * rows * cols entries; the shape is below 2^48 values.
[[nodiscard]] std::vector<std::byte> reference_encode(std::span<const std::uint16_t> values, const MatrixShape& shape);

/// `blob` must be valid (BlobView). Returns batch * rows * cols values.
[[nodiscard]] std::vector<std::uint16_t> reference_decode(std::span<const std::byte> blob);

}  // namespace unweight::codec
