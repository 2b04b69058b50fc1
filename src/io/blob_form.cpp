// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <codec/distribution_decode.hpp>
#include <codec/distribution_open.hpp>
#include <codec/open.hpp>
#include <codec/strips.hpp>
#include <fmt/format.h>
#include <io/blob_form.hpp>
#include <io/try.hpp>
#include <unweight/distribution.hpp>
#include <utility>
#include <vector>

namespace unweight {

std::string_view profile_name(Profile profile) noexcept {
  return profile == Profile::kDistribution ? "distribution" : "runtime";
}

namespace io {
namespace {

/// Decoded values handed on at a time, for each thread that decodes, up to kMaxPieceThreads.
constexpr std::uint64_t kPieceBytes = std::uint64_t{2} << 20;
constexpr unsigned kMaxPieceThreads = 4;

/// What the two forms have in common once a blob is open.
template <class View, class DecodeRows, class CheckContent>
Result<void> stream_view(const View& view, std::uint64_t strips_together, unsigned threads, const ValueSink& sink,
                         const DecodeRows& decode_rows, const CheckContent& check_content) {
  const codec::Strips strips({view.header().batch, view.header().rows, view.header().cols});
  const std::uint64_t strip_bytes = 2 * strips.shape.cols * format::kTileRows;
  const std::uint64_t strips_at_once =
      strips_together *
      std::max<std::uint64_t>(1, kPieceBytes * std::min(threads, kMaxPieceThreads) / (strips_together * strip_bytes));
  std::vector<std::uint64_t> checksums(strips.count());
  for (std::uint64_t first = 0; first < strips.count(); first += strips_at_once) {
    const std::uint64_t last = std::min(strips.count(), first + strips_at_once) - 1;
    const std::uint64_t row = strips.row_begin(first);
    const std::uint64_t rows = strips.row_begin(last) + strips.rows(last) - row;
    const std::uint64_t count = rows * strips.shape.cols;
    UNWEIGHT_ASSIGN(Buffer buffer, sink.take(count));
    const std::span<std::uint16_t> values = buffer.values().first(count);
    UNWEIGHT_TRY(decode_rows(row, rows, values));
    for (std::uint64_t strip = first; strip <= last; ++strip) {
      const std::span<const std::uint16_t> decoded = values;
      checksums[strip] = codec::strip_checksum(
          codec::tile_kernels(),
          decoded.subspan((strips.row_begin(strip) - row) * strips.shape.cols, strips.rows(strip) * strips.shape.cols));
    }
    UNWEIGHT_TRY(sink.give(std::move(buffer), count));
  }
  return check_content(checksums);
}

template <class View>
Result<void> check_size(const View& view, std::span<const std::byte> blob, std::uint64_t value_bytes) {
  if (view.bytes().size() == blob.size() && 2 * view.values() == value_bytes) return {};
  return fail(ErrorCode::kBadBundle,
              fmt::format("{} stored bytes hold a blob of {} bytes for {} bytes of values, not {}", blob.size(),
                          view.bytes().size(), 2 * view.values(), value_bytes));
}

}  // namespace

std::uint64_t container_version(Profile profile) noexcept { return profile == Profile::kDistribution ? 2 : 1; }

std::uint64_t format_version(Profile profile) noexcept {
  constexpr std::uint16_t kVersions[] = {format::kVersionMajor, format::distribution::kVersionMajor};
  return kVersions[static_cast<std::size_t>(profile)];
}

Result<std::uint64_t> encode_blob(Profile profile, std::span<const std::uint16_t> values, const MatrixShape& shape,
                                  std::span<std::byte> out, unsigned threads) {
  if (profile == Profile::kDistribution) {
    UNWEIGHT_ASSIGN(const std::uint64_t size, distribution::encode_into(values, shape, out, {.threads = threads}));
    UNWEIGHT_ASSIGN(const format::distribution::Header header, format::distribution::read_header(out.first(size)));
    return header.layout == static_cast<std::uint8_t>(distribution::Layout::kRaw) ? 0 : size;
  }
  UNWEIGHT_ASSIGN(const std::uint64_t size, encode_into(values, shape, out, {.threads = threads}));
  UNWEIGHT_ASSIGN(const format::Header header, format::read_header(out.first(size)));
  return header.layout == static_cast<std::uint8_t>(BlobLayout::kRaw) ? 0 : size;
}

Result<void> decode_blob_rows(Profile profile, std::span<const std::byte> blob, std::uint64_t row_begin,
                              std::uint64_t row_count, std::span<std::uint16_t> values, unsigned threads) {
  const DecodeOptions options{.threads = threads, .verify_checksums = false};
  return profile == Profile::kDistribution ? distribution::decode_rows(blob, row_begin, row_count, values, options)
                                           : decode_rows(blob, row_begin, row_count, values, options);
}

Result<void> decode_blob(Profile profile, std::span<const std::byte> blob, std::span<std::uint16_t> values,
                         unsigned threads) {
  const DecodeOptions options{.threads = threads, .verify_checksums = true};
  return profile == Profile::kDistribution ? distribution::decode(blob, values, options)
                                           : decode(blob, values, options);
}

Result<void> stream_blob(Profile profile, std::span<const std::byte> blob, std::uint64_t value_bytes, unsigned threads,
                         const ValueSink& sink) {
  if (profile == Profile::kDistribution) {
    UNWEIGHT_ASSIGN(const auto view, codec::distribution::open_blob(blob));
    UNWEIGHT_TRY(check_size(view, blob, value_bytes));
    UNWEIGHT_TRY(codec::distribution::check_payload(view, threads));
    const std::uint64_t group_rows = std::max<std::uint32_t>(format::kTileRows, view.blocks().group_rows);
    return stream_view(
        view, group_rows / format::kTileRows, threads, sink,
        [&](std::uint64_t row, std::uint64_t rows, std::span<std::uint16_t> values) {
          return codec::distribution::decode_rows_with(codec::distribution::rans_kernels(), view, row, rows, values,
                                                       threads);
        },
        [&](std::span<const std::uint64_t> strips) { return codec::distribution::check_content(view, strips); });
  }
  UNWEIGHT_ASSIGN(const auto view, codec::open_blob(blob));
  UNWEIGHT_TRY(check_size(view, blob, value_bytes));
  UNWEIGHT_TRY(codec::check_payload(view, threads));
  return stream_view(
      view, 1, threads, sink,
      [&](std::uint64_t row, std::uint64_t rows, std::span<std::uint16_t> values) {
        return decode_blob_rows(profile, blob, row, rows, values, threads);
      },
      [&](std::span<const std::uint64_t> strips) { return codec::check_content(view, strips); });
}

}  // namespace io
}  // namespace unweight
