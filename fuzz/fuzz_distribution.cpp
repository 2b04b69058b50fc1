// SPDX-License-Identifier: Apache-2.0
//
// The decoder of the distribution form on hostile bytes. The checksum of the header would stop nearly every mutation,
// so it is repaired first; half of the inputs are also run as they are. Every implementation must come to what the
// reference decoder says: the same values, or that the blob is corrupt.
#include <codec/distribution_decode.hpp>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <codec/open.hpp>
#include <cstdlib>
#include <vector>

namespace {

using namespace unweight;
namespace rans = codec::distribution;
using format::distribution::Header;

constexpr std::uint64_t kMaxValues = 1 << 20;  // raw geometry can announce huge empty batches; keep runs short
constexpr std::uint64_t kMaxReferenceValues = 1 << 15;

void require(bool condition) {
  if (!condition) std::abort();
}

void decode_all(std::span<const std::byte> blob) {
  const auto view = rans::open_blob(blob);
  require(view.has_value() == distribution::inspect(blob).has_value());
  if (!view || view->values() > kMaxValues) return;
  std::vector<std::uint16_t> expected;
  bool first = true, valid = false;
  for (const rans::RansKernels* kernels : rans::available_rans_kernels()) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(view->values()));
    const auto ok = rans::decode_with(*kernels, *view, values, {.threads = 1, .verify_checksums = false});
    if (first) {
      expected = values;
      valid = ok.has_value();
    }
    first = false;
    require(ok.has_value() == valid);
    require(!valid || values == expected);
  }
  if (view->values() <= kMaxReferenceValues) {
    const auto reference = rans::reference_decode(blob);
    require(reference.has_value() == valid);
    require(!valid || *reference == expected);
  }
  const auto& h = view->header();
  if (view->values() != 0) {
    const std::uint64_t row = h.rows / 2;
    std::vector<std::uint16_t> one(static_cast<std::size_t>(h.cols));
    const auto ok = distribution::decode_rows(blob, row, 1, one);
    require(ok.has_value() || !valid);
    if (valid) {
      require(std::equal(one.begin(), one.end(), expected.begin() + static_cast<std::ptrdiff_t>(row * h.cols)));
    }
  }
  if (const auto info = distribution::verify_blob(blob)) require(valid);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> blob(size);
  if (size != 0) std::memcpy(blob.data(), data, size);
  if (const auto header = format::distribution::read_header(blob)) {
    if (size % 2 == 0 || header->reserved0 != 0) {
      Header repaired = *header;
      repaired.payload_checksum =
          codec::payload_checksum(std::span<const std::byte>(blob).subspan(format::kHeaderBytes), 1);
      repaired.header_checksum = rans::header_checksum(repaired);
      std::memcpy(blob.data(), &repaired, sizeof repaired);
    }
  }
  decode_all(blob);
  return 0;
}
