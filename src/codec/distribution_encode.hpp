// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <codec/rans_kernels.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unweight/distribution.hpp>
#include <unweight/result.hpp>

namespace unweight::codec::distribution {

/// encode_into() with a given implementation of the inner loops. Throws bad_alloc.
[[nodiscard]] Result<std::uint64_t> encode_with(const RansKernels& kernels, std::span<const std::uint16_t> values,
                                                const MatrixShape& shape, std::span<std::byte> out, unsigned threads);

/// Writes the whole raw blob, checksums included; `out` has at least raw_blob_bytes(values.size()). Returns that size.
std::uint64_t write_raw(std::span<const std::uint16_t> values, const MatrixShape& shape, std::span<std::byte> out,
                        unsigned threads);

}  // namespace unweight::codec::distribution
