// SPDX-License-Identifier: Apache-2.0
//
// The truth of the distribution form: an encoder and a decoder written like docs/DISTRIBUTION.md, one value at a time,
// with nothing clever in them. Every other implementation is tested against them bit for bit. They share constants and
// the geometry with the quick codec, but no algorithm. Not for production.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unweight/blob.hpp>
#include <vector>

namespace unweight::codec::distribution {

/// `values` has batch * rows * cols entries; the shape is below 2^48 values.
[[nodiscard]] std::vector<std::byte> reference_encode(std::span<const std::uint16_t> values, const MatrixShape& shape);

/// `blob` must be valid as far as format::distribution::View tells. Nothing where a block turns out to be corrupt.
[[nodiscard]] std::optional<std::vector<std::uint16_t>> reference_decode(std::span<const std::byte> blob);

}  // namespace unweight::codec::distribution
