// SPDX-License-Identifier: Apache-2.0
//
// One tensor from the source's file to the bytes that the bundle stores, checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <io/buffer.hpp>
#include <io/file.hpp>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>
#include <unweight/safetensors.hpp>

namespace unweight::io {

/// Memory that encode_candidate() needs at most, the source's values included.
[[nodiscard]] std::uint64_t encode_memory_bytes(const TensorEntry& tensor) noexcept;

struct EncodedTensor {
  Buffer buffer;  ///< may be larger than what is stored
  std::size_t size_bytes = 0;
  bool is_blob = false;  ///< otherwise the buffer holds the tensor's own bytes

  [[nodiscard]] std::span<const std::byte> stored() const noexcept { return buffer.bytes().first(size_bytes); }
};

/// The bytes of a tensor at `offset` of its file.
[[nodiscard]] Result<Buffer> read_tensor(const File& source, std::uint64_t offset, const TensorEntry& tensor);

/// Encodes a blob candidate. With `verify` every row of the blob is decoded again and compared; kNotIdentical if any
/// bit differs.
[[nodiscard]] Result<EncodedTensor> encode_candidate(Buffer values, const TensorEntry& tensor, unsigned threads,
                                                     bool verify, Profile profile);

}  // namespace unweight::io
