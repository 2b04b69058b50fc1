// SPDX-License-Identifier: Apache-2.0
//
// The form of a bundle's blobs: what a profile stands for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <io/buffer.hpp>
#include <span>
#include <unweight/blob.hpp>
#include <unweight/checkpoint.hpp>
#include <unweight/result.hpp>

namespace unweight::io {

/// The container version of bundles of this profile: readers of version 1 know the runtime form only.
[[nodiscard]] std::uint64_t container_version(Profile profile) noexcept;

/// Major version of the blobs' format.
[[nodiscard]] std::uint64_t format_version(Profile profile) noexcept;

/// encode_into() of the form; 0 where the blob would be raw.
[[nodiscard]] Result<std::uint64_t> encode_blob(Profile profile, std::span<const std::uint16_t> values,
                                                const MatrixShape& shape, std::span<std::byte> out, unsigned threads);

/// decode_rows() of the form.
[[nodiscard]] Result<void> decode_blob_rows(Profile profile, std::span<const std::byte> blob, std::uint64_t row_begin,
                                            std::uint64_t row_count, std::span<std::uint16_t> values, unsigned threads);

/// The whole of a blob that must have as many values; checks the checksums of header and content.
[[nodiscard]] Result<void> decode_blob(Profile profile, std::span<const std::byte> blob,
                                       std::span<std::uint16_t> values, unsigned threads);

/// The values of a blob in order, some at a time. `take` makes room for so many values, `give` receives them. The blob
/// must have as many bytes as `blob`, and `value_bytes` of values; kBadBundle otherwise. Its checksums are checked: of
/// header and payload first, of the content at the end.
struct ValueSink {
  std::function<Result<Buffer>(std::uint64_t value_count)> take;
  std::function<Result<void>(Buffer buffer, std::uint64_t value_count)> give;
};
[[nodiscard]] Result<void> stream_blob(Profile profile, std::span<const std::byte> blob, std::uint64_t value_bytes,
                                       unsigned threads, const ValueSink& sink);

}  // namespace unweight::io
