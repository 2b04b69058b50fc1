// SPDX-License-Identifier: Apache-2.0
//
// How the tensors of a checkpoint become the matrices of blobs. docs/CONTAINER.md, "Blobs".
#pragma once

#include <cstdint>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/safetensors.hpp>

namespace unweight::io {

/// Smaller tensors are stored as they are: a blob's header and padding would eat the gain.
inline constexpr std::uint64_t kMinBlobValues = 4096;

/// Whether a tensor is tried as a blob: BF16, rank 2 or more, at least kMinBlobValues values.
[[nodiscard]] bool is_blob_candidate(const TensorEntry& tensor) noexcept;

/// The matrices that a candidate's blob holds. The last two extents are rows and columns and those before them the
/// batch, unless that pads over 1/16 and [first extent] x [all others] pads less.
[[nodiscard]] MatrixShape matrix_view(std::span<const std::uint64_t> shape) noexcept;

}  // namespace unweight::io
