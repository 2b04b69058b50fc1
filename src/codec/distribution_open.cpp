// SPDX-License-Identifier: Apache-2.0
#include <codec/checksum.hpp>
#include <codec/distribution_open.hpp>
#include <codec/open.hpp>
#include <fmt/format.h>

namespace unweight::codec::distribution {

using namespace format::distribution;

std::uint64_t header_checksum(const Header& header) {
  return xxh3(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, header_checksum)));
}

namespace {

Result<void> check(const char* what, std::uint64_t stored, std::uint64_t computed) {
  if (stored == computed) return {};
  return fail(ErrorCode::kChecksumMismatch,
              fmt::format("{}: stored checksum {:016x}, computed {:016x}", what, stored, computed));
}

Result<Header> checked_header(std::span<const std::byte> bytes) {
  const auto header = read_header(bytes);
  if (!header) return header;
  if (auto ok = check("distribution blob header", header->header_checksum, header_checksum(*header)); !ok) {
    return tl::unexpected(ok.error());
  }
  return header;
}

/// @tparam Validated  View or Front
template <class Validated>
Result<Validated> open(std::span<const std::byte> bytes) {
  const auto header = checked_header(bytes);
  if (!header) return tl::unexpected(header.error());
  return Validated::validate(*header, bytes);
}

}  // namespace

Result<View> open_blob(std::span<const std::byte> bytes) { return open<View>(bytes); }

Result<Front> open_front(std::span<const std::byte> bytes) { return open<Front>(bytes); }

Result<std::uint64_t> front_bytes(std::span<const std::byte> bytes) {
  const auto header = checked_header(bytes);
  if (!header) return tl::unexpected(header.error());
  return Front::bytes_needed(*header);
}

Result<void> check_payload(const View& blob, unsigned threads) {
  return check("distribution blob payload", blob.header().payload_checksum, payload_checksum(blob.payload(), threads));
}

Result<void> check_content(const View& blob, std::span<const std::uint64_t> strips) {
  return check("decoded tensor", blob.header().content_checksum, combine_chunks(strips));
}

void seal_blob(std::span<std::byte> blob, std::uint64_t content_checksum, std::uint64_t payload_checksum) {
  Header header;
  std::memcpy(&header, blob.data(), sizeof header);
  header.content_checksum = content_checksum;
  header.payload_checksum = payload_checksum;
  header.header_checksum = header_checksum(header);
  std::memcpy(blob.data(), &header, sizeof header);
}

}  // namespace unweight::codec::distribution
