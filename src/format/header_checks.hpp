// SPDX-License-Identifier: Apache-2.0
//
// What both blob formats check in the same way: fields of the header that lie at the same place and mean the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <format/layout.hpp>
#include <span>
#include <string>
#include <unweight/result.hpp>
#include <utility>

namespace unweight::format {

[[nodiscard]] inline std::string text(std::uint64_t value) { return std::to_string(value); }

/// An offset that the header repeats.
struct OffsetField {
  const char* name;
  std::uint64_t stored, expected;
};

/// @tparam Header  of either format
template <class Header>
struct HeaderChecks {
  const char* what;  ///< "blob", "distribution blob": what errors begin with

  [[nodiscard]] tl::unexpected<Error> corrupt_header(const std::string& message) const {
    return fail(ErrorCode::kCorruptHeader, std::string(what) + " header: " + message);
  }
  [[nodiscard]] tl::unexpected<Error> corrupt_payload(const std::string& message) const {
    return fail(ErrorCode::kCorruptPayload, std::string(what) + ": " + message);
  }

  /// Copies the header after checking length, magic and version.
  [[nodiscard]] Result<Header> read(std::span<const std::byte> bytes, const char (&magic)[8],
                                    std::uint16_t version_major) const {
    const std::string begin = std::string(what) + ": ";
    if (bytes.size() < kHeaderBytes) {
      return fail(ErrorCode::kTruncated,
                  begin + text(bytes.size()) + " bytes are less than a header of " + text(kHeaderBytes) + " bytes");
    }
    Header h;
    std::memcpy(&h, bytes.data(), sizeof h);
    if (std::memcmp(h.magic, magic, sizeof magic) != 0) {
      return fail(ErrorCode::kBadMagic,
                  begin + "the first 8 bytes are not \"" + std::string(magic, sizeof magic) + "\"");
    }
    if (h.version_major != version_major) {
      return fail(ErrorCode::kUnsupportedVersion, begin + "format version " + text(h.version_major) + "." +
                                                      text(h.version_minor) + " is not supported, this library reads " +
                                                      text(version_major) + ".x");
    }
    return h;
  }

  /// Header length, dtype, layout, reserved bytes and shape. Returns the number of values.
  [[nodiscard]] Result<std::uint64_t> check_common(const Header& h, std::uint8_t last_layout) const {
    if (h.header_bytes != kHeaderBytes) {
      return corrupt_header("header_bytes = " + text(h.header_bytes) + " must be " + text(kHeaderBytes));
    }
    if (h.dtype != kDtypeBf16) return corrupt_header("dtype = " + text(h.dtype) + " is unknown");
    if (h.layout > last_layout) return corrupt_header("layout = " + text(h.layout) + " is unknown");
    if (h.reserved0 != 0 ||
        std::any_of(std::begin(h.reserved1), std::end(h.reserved1), [](auto b) { return b != 0; })) {
      return corrupt_header("reserved bytes are not zero");
    }
    const std::uint64_t values = saturated_values(h.batch, h.rows, h.cols);
    if (values == kMaxValues) {
      return corrupt_header("shape " + text(h.batch) + " x " + text(h.rows) + " x " + text(h.cols) +
                            " is too large: 2^48 values or more");
    }
    return values;
  }

  [[nodiscard]] Result<void> check_offsets(std::span<const OffsetField> fields) const {
    for (const OffsetField& f : fields) {
      if (f.stored != f.expected) {
        return corrupt_header(std::string(f.name) + " = " + text(f.stored) + " must be " + text(f.expected));
      }
    }
    return {};
  }

  /// Returns the blob's own bytes.
  [[nodiscard]] Result<std::span<const std::byte>> check_size(const Header& h, std::uint64_t expected_bytes,
                                                              std::span<const std::byte> bytes) const {
    if (h.blob_bytes != expected_bytes) {
      return corrupt_header("blob_bytes = " + text(h.blob_bytes) + " must be " + text(expected_bytes));
    }
    if (bytes.size() < h.blob_bytes) {
      return fail(ErrorCode::kTruncated,
                  std::string(what) + ": " + text(bytes.size()) + " bytes, the header announces " + text(h.blob_bytes));
    }
    return bytes.first(static_cast<std::size_t>(h.blob_bytes));
  }
};

}  // namespace unweight::format
