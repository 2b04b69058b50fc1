// SPDX-License-Identifier: Apache-2.0
//
// decode() on a device, bit for bit. bench/gpu/run_all.sh also runs all but the slow suite under compute-sanitizer, and
// all but the damaged blobs under racecheck: in an invalid list two entries may name one value, and either may win.
#include "gpu/device_fixture.cuh"
#include "support/tensors.hpp"
#include <array>
#include <codec/open.hpp>
#include <cstdint>
#include <format/blob_view.hpp>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

std::string describe(const MatrixShape& shape, const std::string& filling, std::uint64_t stride, std::uint64_t offset) {
  return std::to_string(shape.batch) + " x " + std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " " +
         filling + ", stride " + std::to_string(stride) + ", offset " + std::to_string(offset);
}

/// Decodes twice, poisoned before each time, and wants `expected` exactly.
void expect_decodes(const UploadedBlob& blob, std::span<const std::uint16_t> expected, std::uint64_t row_stride,
                    std::uint64_t offset, const std::string& what) {
  ASSERT_TRUE(blob.device);
  GuardedOutput out(blob.device->shape(), row_stride, offset);
  for (int run = 0; run < 2; ++run) {
    out.poison();
    const auto done = decode(*blob.device, out.data(), row_stride, nullptr);
    ASSERT_TRUE(done) << what << ": " << done.error().message;
    out.check(expected, what + (run == 0 ? "" : ", second run"));
  }
}

/// Dense; padded to 16 bytes; odd stride; misaligned start.
void expect_decodes_everywhere(const UploadedBlob& blob, std::span<const std::uint16_t> expected,
                               const std::string& filling) {
  ASSERT_TRUE(blob.device);
  const MatrixShape& shape = blob.device->shape();
  const std::uint64_t padded = (shape.cols + 7) / 8 * 8 + 8;
  const std::array<std::array<std::uint64_t, 2>, 5> places = {
      {{shape.cols, 0}, {padded, 0}, {padded, 8}, {padded, 1}, {shape.cols + 1, 0}}};
  for (const auto& [stride, offset] : places) {
    expect_decodes(blob, expected, stride, offset, describe(shape, filling, stride, offset));
  }
}

class DecodeOnDevice : public DeviceTest {};
using DamagedBlobOnDevice = DecodeOnDevice;
using SlowDecodeOnDevice = DecodeOnDevice;

TEST_F(DecodeOnDevice, EveryFilling) {
  const std::array<MatrixShape, 9> shapes = {MatrixShape{1, 1, 1},    {1, 16, 64},  {1, 17, 65},
                                             MatrixShape{1, 47, 504}, {3, 30, 600}, {1, 64, 1024},
                                             MatrixShape{2, 48, 711}, {5, 16, 64},  {1, 80, 1111}};
  for (const MatrixShape& shape : shapes) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto blob = UploadedBlob::encoded(values, shape);
      expect_decodes_everywhere(blob, values, name_of(filling));
    }
  }
}

TEST_F(DecodeOnDevice, EveryValueInTilesAndPlanes) {
  const RichTensor tensor;
  const auto blob = UploadedBlob::encoded(tensor.values, tensor.shape);
  const auto info = inspect(blob.bytes);
  ASSERT_TRUE(info);
  ASSERT_EQ(info->layout, BlobLayout::kTiled);
  ASSERT_GE(info->escaped_tiles, 32U);
  ASSERT_LT(info->escaped_tiles, info->tile_count / 2);
  expect_decodes_everywhere(blob, tensor.values, "rich");
}

TEST_F(DecodeOnDevice, Slices) {
  const RichTensor tensor;
  const auto whole = UploadedBlob::encoded(tensor.values, tensor.shape);
  const SliceRange range{0, 1, 1008, 1088, 128, 1024};
  auto bytes = slice(whole.bytes, range);
  ASSERT_TRUE(bytes) << bytes.error().message;
  std::vector<std::uint16_t> expected;
  for (std::uint64_t row = range.row_begin; row < range.row_end; ++row) {
    const auto begin = tensor.values.begin() + static_cast<std::ptrdiff_t>(row * tensor.shape.cols);
    expected.insert(expected.end(), begin + 128, begin + 1024);
  }
  expect_decodes_everywhere(UploadedBlob(std::move(*bytes)), expected, "slice");
}

/// Shapes, fillings, strides and offsets at random; a failure prints its seed.
TEST_F(DecodeOnDevice, RandomShapes) {
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    Random random(seed);
    const MatrixShape shape{1 + random.below(4), 1 + random.below(120), 1 + random.below(700)};
    const Filling filling = kAllFillings[random.below(kAllFillings.size())];
    const auto values = make_tensor(shape, filling, seed);
    const std::uint64_t stride = shape.cols + random.below(3) * random.below(20),
                        offset = random.below(2) * random.below(9);
    expect_decodes(UploadedBlob::encoded(values, shape), values, stride, offset,
                   "seed " + std::to_string(seed) + ": " + describe(shape, name_of(filling), stride, offset));
  }
}

/// Payloads of random bytes behind a sound header and tables: any values, but none outside the output, and sign and
/// mantissa as stored.
TEST_F(DamagedBlobOnDevice, PayloadStaysInside) {
  const RichTensor tensor;
  auto bytes = encode(tensor.values, tensor.shape);
  ASSERT_TRUE(bytes);
  const auto view = codec::open_blob(*bytes);
  ASSERT_TRUE(view);
  const format::TiledGeometry g = view->geometry();
  const std::size_t tiles = g.tiles_offset, exceptions = g.exceptions_offset;
  const std::size_t tiles_end = tiles + g.tiles * format::kTileBytes;
  const std::size_t exceptions_end = exceptions + 2 * view->header().exception_units;
  for (const std::uint64_t seed : {1, 2, 3}) {
    Random random(seed);
    std::vector<std::byte> damaged = *bytes;
    for (std::size_t i = tiles; i < tiles_end; ++i) damaged[i] = static_cast<std::byte>(random.next());
    // Seed 3: nothing but first halves of extended entries.
    for (std::size_t i = exceptions; i < exceptions_end; ++i) {
      damaged[i] = static_cast<std::byte>(seed == 3 ? 0xff : random.next());
    }
    const UploadedBlob blob(damaged);
    ASSERT_TRUE(blob.device);
    GuardedOutput out(tensor.shape, tensor.shape.cols, 0);
    ASSERT_TRUE(decode(*blob.device, out.data(), out.row_stride(), nullptr));
    std::vector<std::uint16_t> values(tensor.values.size());
    ASSERT_CUDA(cudaMemcpy(values.data(), out.data(), 2 * values.size(), cudaMemcpyDeviceToHost));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t row = i / 1024, col = i % 1024;
      const std::size_t tile = row / 16 * g.tiles_per_strip + col / 64;
      const auto stored = damaged[tiles + tile * format::kTileBytes + format::position_of(row % 16, col % 64)];
      ASSERT_EQ((values[i] >> 8 & 0x80) | (values[i] & 0x7f), std::to_integer<int>(stored)) << "seed " << seed;
    }
    out.check(values, "damaged payload");  // the guard bands
  }
}

TEST_F(DecodeOnDevice, TwoStreamsAtOnce) {
  const MatrixShape shape{1, 512, 2048};
  const auto a = make_tensor(shape, Filling::kTrained, 1), b = make_tensor(shape, Filling::kEscapes1p5, 2);
  const auto blob_a = UploadedBlob::encoded(a, shape), blob_b = UploadedBlob::encoded(b, shape);
  ASSERT_TRUE(blob_a.device && blob_b.device);
  GuardedOutput out_a(shape, shape.cols, 0), out_b(shape, shape.cols, 0);
  std::array<cudaStream_t, 2> streams{};
  for (cudaStream_t& stream : streams) ASSERT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(decode(*blob_a.device, out_a.data(), shape.cols, streams[round % 2]));
    ASSERT_TRUE(decode(*blob_b.device, out_b.data(), shape.cols, streams[1 - round % 2]));
  }
  for (cudaStream_t stream : streams) {
    ASSERT_CUDA(cudaStreamSynchronize(stream));
    ASSERT_CUDA(cudaStreamDestroy(stream));
  }
  out_a.check(a, "first stream");
  out_b.check(b, "second stream");
}

/// A replay decodes again, from the bytes that the blob has by then; the raw layout is captured too.
TEST_F(DecodeOnDevice, GraphReplay) {
  const MatrixShape shape{1, 100, 1000};
  for (const Filling filling : {Filling::kTrained, Filling::kUniformBits}) {
    auto values = make_tensor(shape, filling, 1);
    const auto blob = UploadedBlob::encoded(values, shape);
    ASSERT_TRUE(blob.device);
    GuardedOutput out(shape, 1008, 0);
    cudaStream_t stream{};
    cudaGraph_t graph{};
    cudaGraphExec_t replay{};
    ASSERT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    ASSERT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    const auto captured = decode(*blob.device, out.data(), out.row_stride(), stream);
    ASSERT_CUDA(cudaStreamEndCapture(stream, &graph));
    ASSERT_TRUE(captured) << captured.error().message;
    ASSERT_CUDA(cudaGraphInstantiate(&replay, graph, 0));
    for (int run = 0; run < 3; ++run) {
      out.poison();
      ASSERT_CUDA(cudaDeviceSynchronize());
      ASSERT_CUDA(cudaGraphLaunch(replay, stream));
      ASSERT_CUDA(cudaStreamSynchronize(stream));
      out.check(values, "replay " + std::to_string(run) + " of " + name_of(filling));
    }
    // The mantissa of the first value lies at the payload's first byte in both layouts.
    values[0] ^= 0x7f;
    const std::byte flipped = blob.bytes[format::kHeaderBytes] ^ std::byte{0x7f};
    ASSERT_CUDA(cudaMemcpy(blob.memory.data() + format::kHeaderBytes, &flipped, 1, cudaMemcpyHostToDevice));
    ASSERT_CUDA(cudaGraphLaunch(replay, stream));
    ASSERT_CUDA(cudaStreamSynchronize(stream));
    out.check(values, "replay of a changed blob");
    ASSERT_CUDA(cudaGraphExecDestroy(replay));
    ASSERT_CUDA(cudaGraphDestroy(graph));
    ASSERT_CUDA(cudaStreamDestroy(stream));
  }
}

TEST_F(DecodeOnDevice, EmptyTensors) {
  for (const MatrixShape& shape : {MatrixShape{1, 0, 64}, MatrixShape{0, 16, 64}, MatrixShape{1, 16, 0}}) {
    const auto bytes = encode({}, shape);
    ASSERT_TRUE(bytes);
    const auto blob = DeviceBlob::create(*bytes, nullptr);
    ASSERT_TRUE(blob) << blob.error().message;
    EXPECT_TRUE(decode(*blob, nullptr, shape.cols, nullptr));
  }
}

void expect_error(const Result<DeviceBlob>& result, ErrorCode code, const std::string& part) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
}

TEST_F(DecodeOnDevice, RefusesUnsoundBlobs) {
  const MatrixShape shape{1, 64, 512};
  const auto values = make_tensor(shape, Filling::kTrained, 1);
  const auto blob = UploadedBlob::encoded(values, shape);
  expect_error(DeviceBlob::create(blob.bytes, blob.memory.data() + 64), ErrorCode::kInvalidArgument, "multiple of 128");
  alignas(128) static std::array<std::byte, 128> host{};
  expect_error(DeviceBlob::create(blob.bytes, host.data()), ErrorCode::kInvalidArgument, "not device memory");
  expect_error(DeviceBlob::create(blob.bytes, nullptr), ErrorCode::kInvalidArgument, "not device memory");
  expect_error(DeviceBlob::create(std::span(blob.bytes).first(1000), blob.memory.data()), ErrorCode::kTruncated,
               "1000");
  auto damaged = blob.bytes;
  damaged[33] ^= std::byte{1};
  expect_error(DeviceBlob::create(damaged, blob.memory.data()), ErrorCode::kChecksumMismatch, "");
  damaged = blob.bytes;
  const auto view = codec::open_blob(blob.bytes);
  ASSERT_TRUE(view);
  damaged[view->geometry().tile_starts_offset + 3] = std::byte{0xff};
  expect_error(DeviceBlob::create(damaged, blob.memory.data()), ErrorCode::kCorruptPayload, "tile");
}

TEST_F(DecodeOnDevice, RefusesUnsoundArguments) {
  const MatrixShape shape{1, 64, 512};
  const auto blob = UploadedBlob::encoded(make_tensor(shape, Filling::kTrained, 1), shape);
  ASSERT_TRUE(blob.device);
  DeviceArray<std::uint16_t> out(64 * 512 + 1);
  const auto expect_refused = [&](std::uint16_t* values, std::uint64_t stride, const std::string& part) {
    const auto result = decode(*blob.device, values, stride, nullptr);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  expect_refused(out.data(), 511, "row_stride=511");
  expect_refused(out.data(), std::uint64_t{1} << 47, "too large");
  expect_refused(nullptr, 512, "null");
  expect_refused(reinterpret_cast<std::uint16_t*>(reinterpret_cast<char*>(out.data()) + 1), 512, "aligned");
}

/// A blob of which the host has header and tables alone, or whose tables were validated before.
TEST_F(DecodeOnDevice, FromParts) {
  const MatrixShape shape{2, 40, 300};
  const auto values = make_tensor(shape, Filling::kEscapes1p5, 1);
  const auto blob = UploadedBlob::encoded(values, shape);
  const std::span<const std::byte> bytes = blob.bytes;
  const auto range = blob_tables(bytes.first(256));
  ASSERT_TRUE(range) << range.error().message;
  const auto tables = bytes.subspan(range->offset, range->size_bytes);
  for (const auto& device : {DeviceBlob::create(bytes.first(256), tables, blob.memory.data()),
                             DeviceBlob::create_unchecked(bytes.first(256), blob.memory.data())}) {
    ASSERT_TRUE(device) << device.error().message;
    GuardedOutput out(shape, shape.cols, 0);
    ASSERT_TRUE(decode(*device, out.data(), shape.cols, nullptr));
    out.check(values, "from parts");
  }
  expect_error(DeviceBlob::create(bytes.first(256), tables.first(100), blob.memory.data()), ErrorCode::kTruncated,
               "tables");
}

/// What a caller without a usable device is told.
TEST(DecodeWithoutDevice, SaysSo) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) GTEST_SKIP() << "there is a device";
  const MatrixShape shape{1, 64, 512};
  const auto bytes = encode(make_tensor(shape, Filling::kTrained, 1), shape);
  ASSERT_TRUE(bytes);
  alignas(128) static std::array<std::byte, 128> address{};
  expect_error(DeviceBlob::create(*bytes, address.data()), ErrorCode::kNoDevice, "driver");
}

/// More thread blocks than the device holds at a time; row and matrix borders inside of blocks.
TEST_F(SlowDecodeOnDevice, LargeMatrices) {
  for (const MatrixShape& shape :
       {MatrixShape{1, 4096, 4096}, MatrixShape{7, 1000, 1400}, MatrixShape{1, 100000, 40}}) {
    const auto values = make_tensor(shape, Filling::kTrained, 1);
    const auto blob = UploadedBlob::encoded(values, shape);
    ASSERT_TRUE(blob.device);
    expect_decodes(blob, values, shape.cols, 0, describe(shape, "trained", shape.cols, 0));
  }
}

}  // namespace
}  // namespace unweight::test
