// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <io/blob_form.hpp>
#include <io/json_text.hpp>
#include <io/matrix_view.hpp>
#include <io/tensor_encoder.hpp>
#include <io/try.hpp>
#include <string>
#include <utility>

namespace unweight::io {
namespace {

/// Decoded and compared at a time by each thread; whole strips of 16 rows, so that none is decoded twice.
constexpr std::uint64_t kVerifyBytes = std::uint64_t{1} << 20;

Result<void> check_identical(std::span<const std::byte> blob, std::span<const std::uint16_t> values,
                             const MatrixShape& shape, unsigned threads, Profile profile) {
  const std::uint64_t rows = shape.batch * shape.rows;
  const std::uint64_t rows_at_once =
      std::max<std::uint64_t>(1, kVerifyBytes * threads / (2 * shape.cols * kSliceRows)) * kSliceRows;
  Buffer decoded(std::min(rows, rows_at_once) * shape.cols * 2);
  for (std::uint64_t row = 0; row < rows; row += rows_at_once) {
    const std::uint64_t count = std::min(rows_at_once, rows - row);
    const auto out = decoded.values().first(count * shape.cols);
    UNWEIGHT_TRY(decode_blob_rows(profile, blob, row, count, out, threads));
    if (std::memcmp(out.data(), values.data() + row * shape.cols, out.size_bytes()) != 0) {
      return fail(ErrorCode::kNotIdentical, "decoding gives other values than were encoded, in rows " +
                                                std::to_string(row) + " to " + std::to_string(row + count));
    }
  }
  return {};
}

}  // namespace

std::uint64_t encode_memory_bytes(const TensorEntry& tensor) noexcept {
  // Values, blob, and a sixteenth for exception lists and tables on the way.
  return 2 * tensor.size_bytes() + tensor.size_bytes() / 16 + 1024;
}

Result<Buffer> read_tensor(const File& source, std::uint64_t offset, const TensorEntry& tensor) {
  Buffer buffer(tensor.size_bytes());
  UNWEIGHT_TRY(source.read(offset, buffer.bytes()));
  return buffer;
}

Result<EncodedTensor> encode_candidate(Buffer values, const TensorEntry& tensor, unsigned threads, bool verify,
                                       Profile profile) {
  const MatrixShape shape = matrix_view(tensor.shape);
  UNWEIGHT_ASSIGN(const std::uint64_t bound, encode_bound(shape));
  EncodedTensor encoded;
  encoded.buffer = Buffer(bound);
  UNWEIGHT_ASSIGN(encoded.size_bytes, encode_blob(profile, values.values(), shape, encoded.buffer.bytes(), threads));
  if (encoded.size_bytes == 0 || encoded.size_bytes >= values.size_bytes()) {
    encoded.size_bytes = values.size_bytes();
    encoded.buffer = std::move(values);
    return encoded;
  }
  encoded.is_blob = true;
  if (verify) {
    auto identical = check_identical(encoded.stored(), values.values(), shape, threads, profile);
    if (!identical) return fail_within("tensor " + quoted_name(tensor.name), std::move(identical).error());
  }
  return encoded;
}

}  // namespace unweight::io
