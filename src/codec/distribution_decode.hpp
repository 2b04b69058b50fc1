// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <codec/rans_kernels.hpp>
#include <cstdint>
#include <format/distribution_view.hpp>
#include <span>
#include <unweight/distribution.hpp>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::codec::distribution {

/// The tables of a blob's classes. Throws bad_alloc.
[[nodiscard]] std::vector<DecodeTable> make_decode_tables(const format::distribution::View& blob);

/// decode() of a validated blob with a given implementation of the inner loops. Throws bad_alloc.
[[nodiscard]] Result<void> decode_with(const RansKernels& kernels, const format::distribution::View& blob,
                                       std::span<std::uint16_t> values, const DecodeOptions& options);

/// decode_rows() of a validated blob. Throws bad_alloc.
[[nodiscard]] Result<void> decode_rows_with(const RansKernels& kernels, const format::distribution::View& blob,
                                            std::uint64_t row_begin, std::uint64_t row_count,
                                            std::span<std::uint16_t> values, unsigned threads);

}  // namespace unweight::codec::distribution
