// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <format/distribution_view.hpp>
#include <format/header_checks.hpp>
#include <string>

namespace unweight::format::distribution {
namespace {

constexpr HeaderChecks<Header> kChecks{"distribution blob"};

tl::unexpected<Error> corrupt_header(const std::string& message) { return kChecks.corrupt_header(message); }

tl::unexpected<Error> corrupt_payload(const std::string& message) { return kChecks.corrupt_payload(message); }

Result<void> check_offsets(const Header& h, const Sections& s) {
  const OffsetField fields[] = {
      {"block_starts_offset", h.block_starts_offset, s.block_starts_offset},
      {"escape_counts_offset", h.escape_counts_offset, s.escape_counts_offset},
      {"scales_offset", h.scales_offset, s.scales_offset},
      {"tables_offset", h.tables_offset, s.tables_offset},
      {"row_scales_offset", h.row_scales_offset, s.row_scales_offset},
      {"stream_offset", h.stream_offset, s.stream_offset},
  };
  return kChecks.check_offsets(fields);
}

Result<void> check_counts(const Header& h) {
  if (h.class_count == 0 || h.class_count > kMaxClasses) {
    return corrupt_header("class_count = " + text(h.class_count) + " must be 1 to " + text(kMaxClasses));
  }
  if (h.scale_count == 0 || h.scale_count > kMaxScales) {
    return corrupt_header("scale_count = " + text(h.scale_count) + " must be 1 to " + text(kMaxScales));
  }
  const std::uint32_t least = h.class_count * kTableHeadUnits, most = least + h.class_count * kMaxWindow;
  if (h.table_units < least || h.table_units > most) {
    return corrupt_header("table_units = " + text(h.table_units) + " must be " + text(least) + " to " + text(most));
  }
  if (h.stream_bytes % kStartUnit != 0 || h.stream_bytes / kStartUnit > UINT32_MAX) {
    return corrupt_header("stream_bytes = " + text(h.stream_bytes) + " must be a multiple of 4, at most 2^34 - 4");
  }
  return {};
}

}  // namespace

Result<Header> read_header(std::span<const std::byte> bytes) { return kChecks.read(bytes, kMagic, kVersionMajor); }

Result<void> Front::read(const Header& h, std::uint64_t& blob_bytes) {
  const auto counted = kChecks.check_common(h, static_cast<std::uint8_t>(Layout::kCoded));
  if (!counted) return tl::unexpected(counted.error());
  const std::uint64_t values = *counted;
  header_ = h;
  if (layout() == Layout::kRaw) {
    if (h.class_count != 0 || h.scale_count != 0 || h.table_units != 0 || h.stream_bytes != 0) {
      return corrupt_header("a raw blob has no classes, scales, tables and stream");
    }
    blob_bytes = raw_blob_bytes(values);
    return check_offsets(h, Sections{});
  }
  if (values == 0) return corrupt_header("a coded blob cannot be empty");
  if (auto ok = check_counts(h); !ok) return ok;
  // At most 6 bytes for each of at most 2^48 blocks and a byte for each row: no sum below overflows.
  blocks_ = cut_blocks(h.batch, h.rows, h.cols);
  sections_ = place_sections(blocks_, h.batch * h.rows, h.scale_count, h.table_units);
  blob_bytes = sections_.blob_bytes(h.stream_bytes);
  return check_offsets(h, sections_);
}

Result<void> Front::read_tables() {
  if (layout() == Layout::kRaw) return {};
  if (auto ok = read_models(); !ok) return ok;
  return check_starts();
}

Result<std::uint64_t> Front::bytes_needed(const Header& h) {
  Front front;
  std::uint64_t blob_bytes = 0;
  if (auto ok = front.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  return front.front_bytes();
}

Result<Front> Front::validate(const Header& h, std::span<const std::byte> bytes) {
  Front front;
  std::uint64_t blob_bytes = 0;
  if (auto ok = front.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  // Of the blob, only what is needed has to be there.
  const std::uint64_t needed = front.front_bytes();
  if (h.blob_bytes != blob_bytes || bytes.size() < needed) {
    const auto checked = kChecks.check_size(h, blob_bytes, bytes);
    if (!checked) return tl::unexpected(checked.error());
  }
  front.bytes_ = bytes.first(static_cast<std::size_t>(needed));
  if (auto ok = front.read_tables(); !ok) return tl::unexpected(ok.error());
  return front;
}

Result<View> View::validate(const Header& h, std::span<const std::byte> bytes) {
  View view;
  std::uint64_t blob_bytes = 0;
  if (auto ok = view.read(h, blob_bytes); !ok) return tl::unexpected(ok.error());
  const auto own_bytes = kChecks.check_size(h, blob_bytes, bytes);
  if (!own_bytes) return tl::unexpected(own_bytes.error());
  view.bytes_ = *own_bytes;
  if (auto ok = view.read_tables(); !ok) return tl::unexpected(ok.error());
  if (auto ok = view.check_states(); !ok) return tl::unexpected(ok.error());
  return view;
}

Result<void> Front::read_models() {
  const auto unit = [this](std::uint64_t offset, std::uint64_t i) {
    return load<std::uint16_t>(at(offset) + i * sizeof(std::uint16_t));
  };
  std::uint32_t next = 0;
  for (std::uint32_t c = 0; c < header_.class_count; ++c) {
    const std::uint32_t left = header_.table_units - next;
    const std::uint32_t window = left < kTableHeadUnits ? 0 : unit(sections_.tables_offset, next);
    if (left < kTableHeadUnits || window > kMaxWindow || window > left - kTableHeadUnits) {
      return corrupt_payload("the table of class " + text(c) + " does not fit: " + text(left) + " units are left");
    }
    Frequencies& f = frequencies_.emplace_back();
    f.fill(0);
    f[kZeroRank] = unit(sections_.tables_offset, next + 1);
    f[kEscapeRank] = unit(sections_.tables_offset, next + 2);
    next += kTableHeadUnits;
    for (std::uint32_t rank = 0; rank < window; ++rank) f[rank] = unit(sections_.tables_offset, next++);
    std::uint32_t sum = 0;
    for (const std::uint16_t frequency : f) sum += frequency;
    if (sum != kFrequencyTotal) {
      return corrupt_payload("the frequencies of class " + text(c) + " sum to " + text(sum) + ", not 4096");
    }
  }
  if (next != header_.table_units) {
    return corrupt_payload("the tables take " + text(next) + " units of " + text(header_.table_units));
  }
  for (std::uint32_t i = 0; i < header_.scale_count; ++i) {
    const std::uint16_t scale = unit(sections_.scales_offset, i);
    if (scale_class(scale) >= header_.class_count) {
      return corrupt_payload("scale " + text(i) + " has class " + text(scale_class(scale)) + " of " +
                             text(header_.class_count));
    }
  }
  const std::byte* row_scales = at(sections_.row_scales_offset);
  const std::uint64_t rows = header_.batch * header_.rows;
  for (std::uint64_t row = 0; row < rows; ++row) {
    if (std::to_integer<std::uint32_t>(row_scales[row]) >= header_.scale_count) {
      return corrupt_payload("row_scales[" + text(row) +
                             "] = " + text(std::to_integer<std::uint32_t>(row_scales[row])) +
                             " is out of range: the blob has " + text(header_.scale_count) + " scales");
    }
  }
  return {};
}

Result<void> Front::check_starts() const {
  if (start(0) != 0) return corrupt_payload("block 0 begins at byte " + text(start(0)) + ", not at 0");
  for (std::uint64_t b = 0; b < blocks_.count; ++b) {
    const std::uint64_t begin = start(b), end = start(b + 1);
    const BlockPlace where = place(b);
    if (end < begin || end > header_.stream_bytes ||
        end - begin < suffix_plane_bytes(where.steps()) + kFixedStateBytes) {
      return corrupt_payload("block " + text(b) + " ranges from byte " + text(begin) + " to " + text(end) +
                             " of a stream of " + text(header_.stream_bytes));
    }
    if (escape_count(b) > where.rows * where.cols) {
      return corrupt_payload("block " + text(b) + " of " + text(where.rows * where.cols) + " values has " +
                             text(escape_count(b)) + " escapes");
    }
  }
  if (start(blocks_.count) != header_.stream_bytes) {
    return corrupt_payload("the last block ends at byte " + text(start(blocks_.count)) + ", the stream has " +
                           text(header_.stream_bytes));
  }
  return {};
}

Result<void> View::check_states() const {
  if (layout() == Layout::kRaw) return {};
  for (std::uint64_t b = 0; b < blocks().count; ++b) {
    const auto bytes = block(b);
    const std::uint64_t before_states = suffix_plane_bytes(place(b).steps());
    const auto mask = load<std::uint32_t>(bytes.data() + before_states);
    const std::uint64_t least = before_states + kFixedStateBytes +
                                align_up(static_cast<std::uint64_t>(std::popcount(mask)), kStartUnit) +
                                std::uint64_t{escape_count(b)} * kEscapeBytes;
    if (bytes.size() < least) {
      return corrupt_payload("block " + text(b) + " of " + text(bytes.size()) + " bytes has " + text(escape_count(b)) +
                             " escapes");
    }
  }
  return {};
}

}  // namespace unweight::format::distribution
