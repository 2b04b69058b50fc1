// SPDX-License-Identifier: Apache-2.0
//
// The blob decoder on hostile bytes. The checksum of the header would stop nearly every mutation, so it is repaired
// first; half of the inputs are also run as they are. Whatever decodes must agree with the reference decoder.
#include <codec/decode.hpp>
#include <codec/open.hpp>
#include <codec/reference.hpp>
#include <cstdlib>
#include <vector>

namespace {

using namespace unweight;

constexpr std::uint64_t kMaxValues = 1 << 20;  // raw geometry can announce huge empty batches; keep runs short

void require(bool condition) {
  if (!condition) std::abort();
}

void decode_all(std::span<const std::byte> blob) {
  const auto view = codec::open_blob(blob);
  require(view.has_value() == inspect(blob).has_value());
  if (!view || view->values() > kMaxValues) return;
  std::vector<std::uint16_t> expected;
  for (const codec::TileKernels* kernels : codec::available_tile_kernels()) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(view->values()));
    require(codec::decode_with(*kernels, *view, values, {.threads = 1, .verify_checksums = false}).has_value());
    if (expected.empty()) expected = values;
    require(values == expected);
  }
  if (view->values() < 4096) require(codec::reference_decode(blob) == expected);

  const auto& h = view->header();
  if (view->values() != 0) {
    const std::uint64_t row = h.rows / 2;
    std::vector<std::uint16_t> one(static_cast<std::size_t>(h.cols));
    require(decode_rows(blob, row, 1, one).has_value());
    require(std::equal(one.begin(), one.end(), expected.begin() + static_cast<std::ptrdiff_t>(row * h.cols)));
    const SliceRange range{0, h.batch, std::min<std::uint64_t>(16, (h.rows - 1) / 16 * 16), h.rows, 0, h.cols};
    if (const auto part = slice(blob, range)) require(verify_blob(*part).has_value());
  }
  (void)verify_blob(blob);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> blob(size);
  if (size != 0) std::memcpy(blob.data(), data, size);
  if (const auto header = format::read_header(blob)) {
    if (size % 2 == 0 || header->reserved0 != 0) {
      format::store(blob.data() + offsetof(format::Header, header_checksum), codec::header_checksum(*header));
      format::Header repaired = *header;
      repaired.payload_checksum =
          blob.size() > format::kHeaderBytes
              ? codec::payload_checksum(std::span<const std::byte>(blob).subspan(format::kHeaderBytes), 1)
              : header->payload_checksum;
      format::store(blob.data() + offsetof(format::Header, payload_checksum), repaired.payload_checksum);
      format::store(blob.data() + offsetof(format::Header, header_checksum), codec::header_checksum(repaired));
    }
  }
  decode_all(blob);
  return 0;
}
