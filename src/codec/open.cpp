// SPDX-License-Identifier: Apache-2.0
#include <codec/open.hpp>
#include <codec/parallel.hpp>
#include <codec/tile_kernels.hpp>
#include <fmt/format.h>

namespace unweight::codec {

using namespace format;

std::uint64_t header_checksum(const Header& header) {
  return xxh3(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_checksum)));
}

Result<Header> checked_header(std::span<const std::byte> bytes) {
  const auto header = read_header(bytes);
  if (!header) return header;
  const std::uint64_t computed = header_checksum(*header);
  if (computed != header->header_checksum) {
    return fail(ErrorCode::kChecksumMismatch, fmt::format("blob header: stored checksum {:016x}, computed {:016x}",
                                                          header->header_checksum, computed));
  }
  return header;
}

Result<BlobView> open_blob(std::span<const std::byte> bytes) {
  const auto header = checked_header(bytes);
  if (!header) return tl::unexpected(header.error());
  return BlobView::validate(*header, bytes);
}

Result<BlobTables> open_tables(std::span<const std::byte> bytes, std::span<const std::byte> tables) {
  const auto header = checked_header(bytes);
  if (!header) return tl::unexpected(header.error());
  return BlobTables::validate(*header, tables);
}

Result<ByteRange> tables_range(std::span<const std::byte> bytes) {
  const auto header = checked_header(bytes);
  if (!header) return tl::unexpected(header.error());
  return BlobTables::range(*header);
}

std::uint64_t payload_checksum(std::span<const std::byte> payload, unsigned threads) {
  std::vector<std::uint64_t> chunks(static_cast<std::size_t>(ceil_div(payload.size(), kPayloadChunkBytes)));
  parallel_for(threads, chunks.size(), [&](std::uint64_t chunk) {
    const auto begin = static_cast<std::size_t>(chunk * kPayloadChunkBytes);
    const std::size_t size = std::min<std::size_t>(kPayloadChunkBytes, payload.size() - begin);
    chunks[static_cast<std::size_t>(chunk)] = tile_kernels().xxh3(payload.data() + begin, size);
  });
  return combine_chunks(chunks);
}

Result<void> check_payload(const BlobView& blob, unsigned threads) {
  const std::uint64_t computed = payload_checksum(blob.payload(), threads);
  if (computed != blob.header().payload_checksum) {
    return fail(ErrorCode::kChecksumMismatch, fmt::format("blob payload: stored checksum {:016x}, computed {:016x}",
                                                          blob.header().payload_checksum, computed));
  }
  return {};
}

Result<void> check_content(const BlobView& blob, std::span<const std::uint64_t> strips) {
  const std::uint64_t computed = combine_chunks(strips);
  if (computed != blob.header().content_checksum) {
    return fail(ErrorCode::kChecksumMismatch, fmt::format("decoded tensor: stored checksum {:016x}, computed {:016x}",
                                                          blob.header().content_checksum, computed));
  }
  return {};
}

void seal_blob(std::span<std::byte> blob, std::uint64_t content_checksum, unsigned threads) {
  Header header;
  std::memcpy(&header, blob.data(), sizeof header);
  header.content_checksum = content_checksum;
  header.payload_checksum = payload_checksum(blob.subspan(kHeaderBytes), threads);
  header.header_checksum = header_checksum(header);
  std::memcpy(blob.data(), &header, sizeof header);
}

}  // namespace unweight::codec
