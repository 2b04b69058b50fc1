// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <codec/tile_kernels.hpp>
#include <format/blob_view.hpp>
#include <span>
#include <unweight/blob.hpp>

namespace unweight::codec {

/// decode() of a validated blob with a given implementation of the inner loops. Throws bad_alloc.
[[nodiscard]] Result<void> decode_with(const TileKernels& kernels, const format::BlobView& blob,
                                       std::span<std::uint16_t> values, const DecodeOptions& options);

/// The checksum of the tensor's values, decoded a strip at a time.
[[nodiscard]] std::uint64_t content_checksum(const TileKernels& kernels, const format::BlobView& blob);

}  // namespace unweight::codec
