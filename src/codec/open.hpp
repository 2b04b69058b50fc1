// SPDX-License-Identifier: Apache-2.0
//
// The gate for bytes, with checksums: what every decoding entry point goes through.
#pragma once

#include <codec/checksum.hpp>
#include <cstddef>
#include <format/blob_view.hpp>
#include <span>
#include <unweight/result.hpp>
#include <vector>

namespace unweight::codec {

/// Header checksum as docs/FORMAT.md defines it: XXH3-64 of the header's bytes before the checksum.
[[nodiscard]] std::uint64_t header_checksum(const format::Header& header);

/// Validates header (with its checksum) and tables. Does not read the payload.
[[nodiscard]] Result<format::BlobView> open_blob(std::span<const std::byte> bytes);

/// The header, with its checksum checked and nothing else.
[[nodiscard]] Result<format::Header> checked_header(std::span<const std::byte> bytes);

/// As open_blob(), of a blob of which only the header and the tables are there: the bytes of tables_range().
[[nodiscard]] Result<format::BlobTables> open_tables(std::span<const std::byte> header,
                                                     std::span<const std::byte> tables);

/// Where a blob's tables lie.
[[nodiscard]] Result<format::ByteRange> tables_range(std::span<const std::byte> header);

/// Checksum of everything after the header, in chunks of kPayloadChunkBytes.
[[nodiscard]] std::uint64_t payload_checksum(std::span<const std::byte> payload, unsigned threads);

[[nodiscard]] Result<void> check_payload(const format::BlobView& blob, unsigned threads);

/// Fails unless `strips` (XXH3-64 of each strip's values: 16 rows of one matrix, fewer at its end) combine to the
/// tensor's recorded checksum.
[[nodiscard]] Result<void> check_content(const format::BlobView& blob, std::span<const std::uint64_t> strips);

/// Fills in the header's checksums of a finished blob, in place.
void seal_blob(std::span<std::byte> blob, std::uint64_t content_checksum, unsigned threads);

}  // namespace unweight::codec
