// SPDX-License-Identifier: Apache-2.0
//
// The C interface: every function, every error it can return, and what it leaves in the caller's memory.
#include <algorithm>
#include <capi/boundary.hpp>
#include <cstddef>
#include <cstring>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdexcept>
#include <string>
#include <support/tensors.hpp>
#include <thread>
#include <unweight/blob.hpp>
#include <unweight/unweight.h>
#include <vector>

namespace unweight {
namespace {

using test::Filling;
using test::make_tensor;

// No default: the compiler reports a code that the C interface lacks.
unweight_status status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return UNWEIGHT_OK;
    case ErrorCode::kInvalidArgument:
      return UNWEIGHT_INVALID_ARGUMENT;
    case ErrorCode::kShapeMismatch:
      return UNWEIGHT_SHAPE_MISMATCH;
    case ErrorCode::kBufferTooSmall:
      return UNWEIGHT_BUFFER_TOO_SMALL;
    case ErrorCode::kUnsupportedDtype:
      return UNWEIGHT_UNSUPPORTED_DTYPE;
    case ErrorCode::kTruncated:
      return UNWEIGHT_TRUNCATED;
    case ErrorCode::kBadMagic:
      return UNWEIGHT_BAD_MAGIC;
    case ErrorCode::kUnsupportedVersion:
      return UNWEIGHT_UNSUPPORTED_VERSION;
    case ErrorCode::kCorruptHeader:
      return UNWEIGHT_CORRUPT_HEADER;
    case ErrorCode::kCorruptPayload:
      return UNWEIGHT_CORRUPT_PAYLOAD;
    case ErrorCode::kChecksumMismatch:
      return UNWEIGHT_CHECKSUM_MISMATCH;
    case ErrorCode::kBadSafetensors:
      return UNWEIGHT_BAD_SAFETENSORS;
    case ErrorCode::kBadJson:
      return UNWEIGHT_BAD_JSON;
    case ErrorCode::kBadCheckpoint:
      return UNWEIGHT_BAD_CHECKPOINT;
    case ErrorCode::kBadBundle:
      return UNWEIGHT_BAD_BUNDLE;
    case ErrorCode::kNotIdentical:
      return UNWEIGHT_NOT_IDENTICAL;
    case ErrorCode::kSourceChanged:
      return UNWEIGHT_SOURCE_CHANGED;
    case ErrorCode::kIo:
      return UNWEIGHT_IO;
    case ErrorCode::kNoSpace:
      return UNWEIGHT_NO_SPACE;
    case ErrorCode::kExists:
      return UNWEIGHT_EXISTS;
    case ErrorCode::kNotFound:
      return UNWEIGHT_NOT_FOUND;
    case ErrorCode::kBusy:
      return UNWEIGHT_BUSY;
    case ErrorCode::kNoDevice:
      return UNWEIGHT_NO_DEVICE;
    case ErrorCode::kCuda:
      return UNWEIGHT_CUDA;
    case ErrorCode::kOutOfMemory:
      return UNWEIGHT_OUT_OF_MEMORY;
    case ErrorCode::kCancelled:
      return UNWEIGHT_CANCELLED;
    case ErrorCode::kInternal:
      return UNWEIGHT_INTERNAL;
  }
  return UNWEIGHT_INTERNAL;
}

/// A tiled tensor of two matrices, its blob, and buffers to decode and slice into.
class CApi : public testing::Test {
 protected:
  const MatrixShape shape_{2, 40, 192};
  const unweight_matrix_shape c_shape_{2, 40, 192};
  const std::vector<std::uint16_t> values_ = make_tensor(shape_, Filling::kTrained, 1);
  const std::vector<std::byte> blob_ = encode(values_, shape_).value();
  std::vector<std::uint16_t> decoded_ = std::vector<std::uint16_t>(values_.size(), 0xdead);
  std::vector<std::byte> out_ = std::vector<std::byte>(static_cast<std::size_t>(encode_bound(shape_).value()));
  std::size_t size_ = 12345;

  static unweight_blob_info room() {
    unweight_blob_info info{};
    info.struct_size = sizeof info;
    return info;
  }
};

#define EXPECT_FAILS(call, code, text)                                                  \
  do {                                                                                  \
    EXPECT_EQ(call, code);                                                              \
    EXPECT_NE(std::string(unweight_last_error_message()).find(text), std::string::npos) \
        << "message: " << unweight_last_error_message();                                \
  } while (false)

TEST_F(CApi, VersionIsThatOfTheHeader) {
  EXPECT_STREQ(unweight_version_string(), UNWEIGHT_VERSION_STRING);
  EXPECT_EQ(unweight_version_number(), UNWEIGHT_VERSION_NUMBER);
}

TEST_F(CApi, StatusesAreErrorCodes) {
  int known = 0;
  for (std::uint32_t number = 0; number < 256; ++number) {
    const auto code = static_cast<ErrorCode>(number);
    EXPECT_STREQ(unweight_status_name(number), error_name(code));
    if (std::string(error_name(code)) == "unknown error") continue;
    EXPECT_EQ(status_of(code), number) << error_name(code);
    ++known;
  }
  EXPECT_EQ(known, 27);
  EXPECT_STREQ(unweight_status_name(UNWEIGHT_CHECKSUM_MISMATCH), "checksum mismatch");
  EXPECT_STREQ(unweight_status_name(0xffffffff), "unknown error");
}

TEST_F(CApi, GivesTheSameBytesAndValuesAsCpp) {
  for (const unsigned threads : {0U, 1U, 2U}) {
    ASSERT_EQ(unweight_encode_bound(&c_shape_, &size_), UNWEIGHT_OK);
    EXPECT_EQ(size_, encode_bound(shape_).value());
    ASSERT_EQ(unweight_encode(values_.data(), values_.size(), &c_shape_, threads, out_.data(), out_.size(), &size_),
              UNWEIGHT_OK)
        << unweight_last_error_message();
    ASSERT_EQ(size_, blob_.size());
    EXPECT_TRUE(std::equal(blob_.begin(), blob_.end(), out_.begin()));
    for (const int verify : {0, 1, -1}) {
      std::fill(decoded_.begin(), decoded_.end(), std::uint16_t{0xdead});
      ASSERT_EQ(unweight_decode(blob_.data(), blob_.size(), decoded_.data(), decoded_.size(), threads, verify),
                UNWEIGHT_OK);
      EXPECT_EQ(decoded_, values_);
    }
    // Rows 30 to 49 cross from the first matrix to the second.
    std::vector<std::uint16_t> part(20 * 192);
    ASSERT_EQ(unweight_decode_rows(blob_.data(), blob_.size(), 30, 20, part.data(), part.size(), threads), UNWEIGHT_OK);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), values_.begin() + 30 * 192));
  }
}

TEST_F(CApi, InspectFillsInEverything) {
  const BlobInfo expected = inspect(blob_).value();
  ASSERT_EQ(expected.layout, BlobLayout::kTiled);
  const auto check = [&](const unweight_blob_info& info) {
    EXPECT_EQ(info.struct_size, sizeof info);
    EXPECT_EQ(info.shape.batch, expected.shape.batch);
    EXPECT_EQ(info.shape.rows, expected.shape.rows);
    EXPECT_EQ(info.shape.cols, expected.shape.cols);
    EXPECT_EQ(info.layout, UNWEIGHT_LAYOUT_TILED);
    EXPECT_EQ(info.version_major, expected.version_major);
    EXPECT_EQ(info.version_minor, expected.version_minor);
    EXPECT_EQ(info.blob_bytes, blob_.size());
    EXPECT_EQ(info.value_bytes, 2 * values_.size());
    EXPECT_EQ(info.tile_count, expected.tile_count);
    EXPECT_EQ(info.exception_count, expected.exception_count);
    EXPECT_EQ(info.escaped_tiles, expected.escaped_tiles);
    EXPECT_EQ(info.palette_count, expected.palette_count);
    EXPECT_EQ(info.reserved, 0U);
    EXPECT_EQ(info.content_checksum, expected.content_checksum);
    EXPECT_EQ(info.bits_per_weight, expected.bits_per_weight);
  };
  unweight_blob_info info = room();
  ASSERT_EQ(unweight_inspect(blob_.data(), blob_.size(), &info), UNWEIGHT_OK);
  check(info);
  info = room();
  ASSERT_EQ(unweight_verify_blob(blob_.data(), blob_.size(), 2, &info), UNWEIGHT_OK);
  check(info);
  EXPECT_EQ(unweight_verify_blob(blob_.data(), blob_.size(), 1, nullptr), UNWEIGHT_OK);
}

// A caller compiled against a later release has a larger structure; the rest of it stays as it is.
TEST_F(CApi, InspectStaysWithinItsOwnStructure) {
  struct Later {
    unweight_blob_info known;
    std::uint64_t added;
  };
  Later later{{}, 0x1122334455667788};
  later.known.struct_size = sizeof later;
  ASSERT_EQ(unweight_inspect(blob_.data(), blob_.size(), &later.known), UNWEIGHT_OK);
  EXPECT_EQ(later.known.struct_size, sizeof(unweight_blob_info));
  EXPECT_EQ(later.added, 0x1122334455667788U);
  EXPECT_EQ(later.known.shape.rows, 40U);
}

// Structures that functions read: what a caller does not have counts as 0, what this release does not have must be 0.
TEST(CApiBoundary, ReadsStructuresOfOtherReleases) {
  struct Known {
    std::uint64_t struct_size;
    std::uint32_t first, reserved, second;
  };
  struct Later {
    Known known;
    std::uint32_t added[2];
  };
  constexpr std::uint64_t kFirstBytes = 16;
  const auto read = [](const Known& from) { return capi::read_struct(&from, kFirstBytes, "s"); };
  const auto refusal = [&](const Known& from) {
    const auto result = read(from);
    return result ? "accepted" : result.error().message;
  };
  const auto of_size = [](std::uint64_t size) { return Known{size, 1, 0, 3}; };

  ASSERT_TRUE(read(of_size(sizeof(Known))));
  EXPECT_EQ(read(of_size(sizeof(Known)))->second, 3U);
  ASSERT_TRUE(read(of_size(kFirstBytes)));
  EXPECT_EQ(read(of_size(kFirstBytes))->first, 1U);
  EXPECT_EQ(read(of_size(kFirstBytes))->second, 0U);
  EXPECT_EQ(refusal(of_size(15)), "s->struct_size = 15 must be the structure's size, 16 bytes or more");
  EXPECT_EQ(refusal(of_size(4097)), "s->struct_size = 4097 must be the structure's size, at most 4096 bytes");
  EXPECT_EQ(refusal({sizeof(Known), 1, 7, 3}), "s->reserved = 7 must be 0");

  Later later{of_size(sizeof(Later)), {0, 0}};
  ASSERT_TRUE(read(later.known));
  EXPECT_EQ(read(later.known)->second, 3U);
  later.added[1] = 0x100;
  EXPECT_EQ(refusal(later.known),
            fmt::format("byte {} of s is set, a member that this release does not have: its structure has {} bytes",
                        offsetof(Later, added) + 5, sizeof(Known)));
}

TEST_F(CApi, InspectRefusesAStructureWithoutItsSize) {
  for (const std::uint64_t size : {0U, 8U, 103U}) {
    unweight_blob_info info{};
    info.struct_size = size;
    info.blob_bytes = 77;
    const std::string text = "info->struct_size = " + std::to_string(size);
    EXPECT_FAILS(unweight_inspect(blob_.data(), blob_.size(), &info), UNWEIGHT_INVALID_ARGUMENT, text);
    EXPECT_FAILS(unweight_verify_blob(blob_.data(), blob_.size(), 1, &info), UNWEIGHT_INVALID_ARGUMENT, text);
    EXPECT_EQ(info.struct_size, size);
    EXPECT_EQ(info.blob_bytes, 77U);
  }
}

TEST_F(CApi, HoldsAnEmptyTensor) {
  const unweight_matrix_shape empty{1, 0, 64};
  ASSERT_EQ(unweight_encode_bound(&empty, &size_), UNWEIGHT_OK);
  ASSERT_LE(size_, out_.size());
  ASSERT_EQ(unweight_encode(nullptr, 0, &empty, 1, out_.data(), out_.size(), &size_), UNWEIGHT_OK);
  EXPECT_EQ(unweight_decode(out_.data(), size_, nullptr, 0, 1, 1), UNWEIGHT_OK);
  EXPECT_EQ(unweight_decode_rows(out_.data(), size_, 0, 0, nullptr, 0, 1), UNWEIGHT_OK);
  unweight_blob_info info = room();
  ASSERT_EQ(unweight_verify_blob(out_.data(), size_, 1, &info), UNWEIGHT_OK);
  EXPECT_EQ(info.value_bytes, 0U);
  EXPECT_EQ(info.layout, UNWEIGHT_LAYOUT_RAW);
  EXPECT_EQ(info.bits_per_weight, 0);
}

TEST_F(CApi, SlicesAsCppDoes) {
  const unweight_slice_range range{1, 2, 16, 40, 64, 192};
  const auto expected =
      slice(blob_, {.batch_begin = 1, .batch_end = 2, .row_begin = 16, .row_end = 40, .col_begin = 64, .col_end = 192})
          .value();
  ASSERT_LE(expected.size(), blob_.size());

  EXPECT_EQ(unweight_slice(blob_.data(), blob_.size(), &range, nullptr, 0, &size_), UNWEIGHT_OK);
  EXPECT_EQ(size_, expected.size());

  std::vector<std::byte> cut(expected.size() + 1, std::byte{0x5a});
  size_ = 0;
  ASSERT_EQ(unweight_slice(blob_.data(), blob_.size(), &range, cut.data(), expected.size(), &size_), UNWEIGHT_OK);
  EXPECT_EQ(size_, expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), cut.begin()));
  EXPECT_EQ(cut.back(), std::byte{0x5a});

  // Too small: the size that is needed, and nothing written.
  for (const std::size_t capacity : {std::size_t{0}, std::size_t{1}, expected.size() - 1}) {
    std::fill(cut.begin(), cut.end(), std::byte{0x5a});
    EXPECT_FAILS(
        unweight_slice(blob_.data(), blob_.size(), &range, cut.data(), capacity, &size_), UNWEIGHT_BUFFER_TOO_SMALL,
        "output buffer of " + std::to_string(capacity) + " bytes, the slice has " + std::to_string(expected.size()));
    EXPECT_EQ(size_, expected.size());
    EXPECT_EQ(std::count(cut.begin(), cut.end(), std::byte{0x5a}), static_cast<std::ptrdiff_t>(cut.size()));
  }

  // The whole as a slice needs exactly the whole.
  const unweight_slice_range whole{0, 2, 0, 40, 0, 192};
  ASSERT_EQ(unweight_slice(blob_.data(), blob_.size(), &whole, out_.data(), blob_.size(), &size_), UNWEIGHT_OK);
  EXPECT_EQ(size_, blob_.size());
  EXPECT_TRUE(std::equal(blob_.begin(), blob_.end(), out_.begin()));
}

TEST_F(CApi, SliceRefusesRanges) {
  for (const unweight_slice_range& range :
       {unweight_slice_range{0, 0, 0, 40, 0, 192}, unweight_slice_range{0, 3, 0, 40, 0, 192},
        unweight_slice_range{0, 2, 1, 40, 0, 192}, unweight_slice_range{0, 2, 0, 40, 0, 100},
        unweight_slice_range{0, 2, 16, 0, 0, 192}, unweight_slice_range{0, 2, 0, UINT64_MAX, 0, 192}}) {
    size_ = 12345;
    EXPECT_FAILS(unweight_slice(blob_.data(), blob_.size(), &range, out_.data(), out_.size(), &size_),
                 UNWEIGHT_INVALID_ARGUMENT, "slice of ");
    EXPECT_EQ(size_, 0U);
  }
}

TEST_F(CApi, EncodeRefusesWrongSizes) {
  EXPECT_FAILS(unweight_encode(values_.data(), 5, &c_shape_, 1, out_.data(), out_.size(), &size_),
               UNWEIGHT_SHAPE_MISMATCH, "5 values for shape 2 x 40 x 192");
  EXPECT_EQ(size_, 0U);

  const std::size_t bound = out_.size();
  EXPECT_FAILS(unweight_encode(values_.data(), values_.size(), &c_shape_, 1, out_.data(), bound - 1, &size_),
               UNWEIGHT_BUFFER_TOO_SMALL, std::to_string(bound));
  EXPECT_EQ(size_, bound);
  size_ = 0;
  EXPECT_EQ(unweight_encode(values_.data(), values_.size(), &c_shape_, 1, nullptr, 0, &size_),
            UNWEIGHT_BUFFER_TOO_SMALL);
  EXPECT_EQ(size_, bound);

  const unweight_matrix_shape huge{1, std::uint64_t{1} << 24, std::uint64_t{1} << 24};
  EXPECT_FAILS(unweight_encode_bound(&huge, &size_), UNWEIGHT_INVALID_ARGUMENT, "too large");
  EXPECT_EQ(size_, 0U);
  size_ = 1;
  EXPECT_FAILS(unweight_encode(values_.data(), values_.size(), &huge, 1, out_.data(), out_.size(), &size_),
               UNWEIGHT_INVALID_ARGUMENT, "too large");
  EXPECT_EQ(size_, 0U);
}

TEST_F(CApi, DecodeRefusesWrongSizes) {
  EXPECT_FAILS(unweight_decode(blob_.data(), blob_.size(), decoded_.data(), 63, 1, 1), UNWEIGHT_SHAPE_MISMATCH,
               "buffer of 63 values");
  EXPECT_FAILS(unweight_decode(blob_.data(), blob_.size(), nullptr, 0, 1, 1), UNWEIGHT_SHAPE_MISMATCH,
               "buffer of 0 values");
  EXPECT_FAILS(unweight_decode_rows(blob_.data(), blob_.size(), 0, 2, decoded_.data(), 192, 1), UNWEIGHT_SHAPE_MISMATCH,
               "buffer of 192 values for 2 rows");
  EXPECT_FAILS(unweight_decode_rows(blob_.data(), blob_.size(), 80, 1, decoded_.data(), 192, 1),
               UNWEIGHT_INVALID_ARGUMENT, "the tensor has 80");
  EXPECT_FAILS(unweight_decode_rows(blob_.data(), blob_.size(), UINT64_MAX, 1, decoded_.data(), 192, 1),
               UNWEIGHT_INVALID_ARGUMENT, "row_begin = 18446744073709551615 and row_count = 1 are out of range");
}

TEST_F(CApi, RefusesNullAndMisalignedPointers) {
  const unweight_slice_range range{0, 1, 0, 16, 0, 64};
  const std::byte* blob = blob_.data();
  const std::size_t bytes = blob_.size(), count = values_.size();
  unweight_blob_info info = room();
  const auto invalid = UNWEIGHT_INVALID_ARGUMENT;

  EXPECT_FAILS(unweight_encode_bound(nullptr, &size_), invalid, "shape is NULL");
  EXPECT_EQ(size_, 0U);
  EXPECT_FAILS(unweight_encode_bound(&c_shape_, nullptr), invalid, "bound_bytes is NULL");

  const auto encode_with = [&](const std::uint16_t* values, const unweight_matrix_shape* shape, void* out,
                               std::size_t* size) {
    return unweight_encode(values, count, shape, 1, out, out_.size(), size);
  };
  EXPECT_FAILS(encode_with(nullptr, &c_shape_, out_.data(), &size_), invalid,
               "values is NULL, but value_count = " + std::to_string(count));
  EXPECT_FAILS(encode_with(values_.data(), nullptr, out_.data(), &size_), invalid, "shape is NULL");
  EXPECT_FAILS(encode_with(values_.data(), &c_shape_, nullptr, &size_), invalid,
               "out is NULL, but capacity_bytes = " + std::to_string(out_.size()));
  EXPECT_FAILS(encode_with(values_.data(), &c_shape_, out_.data(), nullptr), invalid, "blob_bytes is NULL");

  EXPECT_FAILS(unweight_inspect(nullptr, bytes, &info), invalid,
               "blob is NULL, but blob_bytes = " + std::to_string(bytes));
  EXPECT_FAILS(unweight_inspect(blob, bytes, nullptr), invalid, "info is NULL");
  EXPECT_FAILS(unweight_verify_blob(nullptr, bytes, 1, &info), invalid, "blob is NULL");
  EXPECT_FAILS(unweight_decode(nullptr, bytes, decoded_.data(), count, 1, 1), invalid, "blob is NULL");
  EXPECT_FAILS(unweight_decode(blob, bytes, nullptr, count, 1, 1), invalid, "values is NULL");
  EXPECT_FAILS(unweight_decode_rows(nullptr, bytes, 0, 1, decoded_.data(), 192, 1), invalid, "blob is NULL");
  EXPECT_FAILS(unweight_decode_rows(blob, bytes, 0, 1, nullptr, 192, 1), invalid, "values is NULL");
  EXPECT_FAILS(unweight_slice(nullptr, bytes, &range, out_.data(), out_.size(), &size_), invalid, "blob is NULL");
  EXPECT_FAILS(unweight_slice(blob, bytes, nullptr, out_.data(), out_.size(), &size_), invalid, "range is NULL");
  EXPECT_FAILS(unweight_slice(blob, bytes, &range, nullptr, 1, &size_), invalid, "out is NULL, but capacity_bytes = 1");
  EXPECT_FAILS(unweight_slice(blob, bytes, &range, out_.data(), out_.size(), nullptr), invalid, "slice_bytes is NULL");

  // An array of values at an odd address, made as a foreign function interface would: from a number.
  const auto odd = reinterpret_cast<std::uintptr_t>(decoded_.data()) + 1;
  EXPECT_FAILS(unweight_decode(blob, bytes, reinterpret_cast<std::uint16_t*>(odd), count, 1, 1), invalid,
               "is not aligned to 2 bytes");
}

TEST_F(CApi, ReadsAndWritesBlobsAtAnyAddress) {
  std::vector<std::byte> moved(out_.size() + 1);
  ASSERT_EQ(unweight_encode(values_.data(), values_.size(), &c_shape_, 1, moved.data() + 1, out_.size(), &size_),
            UNWEIGHT_OK);
  ASSERT_EQ(unweight_decode(moved.data() + 1, size_, decoded_.data(), decoded_.size(), 1, 1), UNWEIGHT_OK);
  EXPECT_EQ(decoded_, values_);
}

TEST_F(CApi, EveryReaderReportsDamage) {
  struct Damage {
    unweight_status status;
    std::size_t keep_bytes;
    std::size_t flip_byte;
  };
  const std::size_t none = SIZE_MAX;
  const std::size_t in_payload = 256 + 100;  // sign and mantissa of a value in the first tile
  for (const Damage& damage :
       {Damage{UNWEIGHT_TRUNCATED, 0, none}, Damage{UNWEIGHT_TRUNCATED, 100, none},
        Damage{UNWEIGHT_TRUNCATED, blob_.size() - 1, none}, Damage{UNWEIGHT_BAD_MAGIC, blob_.size(), 0},
        Damage{UNWEIGHT_UNSUPPORTED_VERSION, blob_.size(), 8}, Damage{UNWEIGHT_CHECKSUM_MISMATCH, blob_.size(), 255},
        Damage{UNWEIGHT_CHECKSUM_MISMATCH, blob_.size(), in_payload}}) {
    std::vector<std::byte> bad(blob_.begin(), blob_.begin() + static_cast<std::ptrdiff_t>(damage.keep_bytes));
    if (damage.flip_byte != none) bad[damage.flip_byte] ^= std::byte{0x80};
    SCOPED_TRACE(unweight_status_name(damage.status));
    const bool payload = damage.flip_byte == in_payload;  // which inspect() and decode_rows() do not check
    const unweight_slice_range range{0, 1, 0, 16, 0, 64};
    unweight_blob_info info = room();
    info.blob_bytes = 77;
    const auto row_status = payload ? UNWEIGHT_OK : damage.status;
    EXPECT_EQ(unweight_inspect(bad.data(), bad.size(), &info), row_status);
    EXPECT_EQ(info.blob_bytes, payload ? blob_.size() : 77);
    EXPECT_EQ(unweight_decode_rows(bad.data(), bad.size(), 0, 1, decoded_.data(), 192, 1), row_status);
    EXPECT_EQ(unweight_verify_blob(bad.data(), bad.size(), 1, &info), damage.status);
    EXPECT_NE(std::strlen(unweight_last_error_message()), 0U);
    EXPECT_EQ(unweight_slice(bad.data(), bad.size(), &range, out_.data(), out_.size(), &size_), damage.status);
    EXPECT_EQ(size_, 0U);
    EXPECT_EQ(unweight_decode(bad.data(), bad.size(), decoded_.data(), decoded_.size(), 1, 1), damage.status);
  }
  EXPECT_EQ(unweight_inspect(nullptr, 0, nullptr), UNWEIGHT_INVALID_ARGUMENT);
  unweight_blob_info info = room();
  EXPECT_EQ(unweight_inspect(nullptr, 0, &info), UNWEIGHT_TRUNCATED);
}

TEST_F(CApi, LastErrorBelongsToTheThreadAndItsLatestCall) {
  EXPECT_EQ(unweight_encode_bound(nullptr, &size_), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_STREQ(unweight_last_error_message(), "shape is NULL");
  std::thread([&] {
    EXPECT_STREQ(unweight_last_error_message(), "");
    std::size_t size = 0;
    EXPECT_EQ(unweight_slice(nullptr, 0, nullptr, nullptr, 0, &size), UNWEIGHT_INVALID_ARGUMENT);
    EXPECT_STREQ(unweight_last_error_message(), "range is NULL");
  }).join();
  EXPECT_STREQ(unweight_last_error_message(), "shape is NULL");
  unweight_status_name(0);
  unweight_version_number();
  EXPECT_STREQ(unweight_last_error_message(), "shape is NULL");
  EXPECT_EQ(unweight_encode_bound(&c_shape_, &size_), UNWEIGHT_OK);
  EXPECT_STREQ(unweight_last_error_message(), "");
}

TEST_F(CApi, NothingIsThrownAcrossTheBoundary) {
  EXPECT_FAILS(capi::guarded([]() -> Result<void> { throw std::bad_alloc(); }), UNWEIGHT_OUT_OF_MEMORY,
               "out of memory");
  EXPECT_FAILS(capi::guarded([]() -> Result<void> { throw std::runtime_error("lost"); }), UNWEIGHT_INTERNAL, "lost");
  EXPECT_FAILS(capi::guarded([]() -> Result<void> { throw 1; }), UNWEIGHT_INTERNAL, "unknown type");
}

TEST_F(CApi, LongMessagesAreCut) {
  for (const std::size_t length : {1022U, 1023U, 1024U, 5000U}) {
    EXPECT_EQ(capi::report(ErrorCode::kIo, std::string(length, 'x')), UNWEIGHT_IO);
    const std::string expected = length < 1024 ? std::string(length, 'x') : std::string(1020, 'x') + "...";
    EXPECT_EQ(unweight_last_error_message(), expected);
  }
}

}  // namespace
}  // namespace unweight
