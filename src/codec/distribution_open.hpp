// SPDX-License-Identifier: Apache-2.0
//
// The gate for bytes of the distribution form, with checksums: what every decoding entry point goes through.
#pragma once

#include <cstddef>
#include <format/distribution_view.hpp>
#include <span>
#include <unweight/result.hpp>

namespace unweight::codec::distribution {

/// XXH3-64 of the header's bytes before the checksum.
[[nodiscard]] std::uint64_t header_checksum(const format::distribution::Header& header);

/// Validates header (with its checksum) and tables. Does not read the stream but for the blocks' states. Throws
/// bad_alloc.
[[nodiscard]] Result<format::distribution::View> open_blob(std::span<const std::byte> bytes);

/// As open_blob(), of bytes that need not go beyond the blob's tables.
[[nodiscard]] Result<format::distribution::Front> open_front(std::span<const std::byte> bytes);

/// How many bytes that is, from the blob's header.
[[nodiscard]] Result<std::uint64_t> front_bytes(std::span<const std::byte> header);

[[nodiscard]] Result<void> check_payload(const format::distribution::View& blob, unsigned threads);

/// Fails unless `strips` (XXH3-64 of each strip's values) combine to the tensor's recorded checksum.
[[nodiscard]] Result<void> check_content(const format::distribution::View& blob, std::span<const std::uint64_t> strips);

/// Fills in the header's checksums of a finished blob, in place.
void seal_blob(std::span<std::byte> blob, std::uint64_t content_checksum, std::uint64_t payload_checksum);

}  // namespace unweight::codec::distribution
