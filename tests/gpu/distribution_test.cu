// SPDX-License-Identifier: Apache-2.0
//
// The distribution form on a device: decoding bit for bit, and transcoding byte for byte as on the CPU; damaged blobs.
// compute-sanitizer sees any access beyond a blob, an output or a workspace: all are exactly as large as they must be.
#include "gpu/device_fixture.cuh"
#include "support/tensors.hpp"
#include <array>
#include <codec/distribution_open.hpp>
#include <cstdint>
#include <string>
#include <unweight/distribution_cuda.hpp>
#include <unweight/unweight_cuda.h>
#include <vector>

namespace unweight::test {
namespace {

using distribution::DeviceStatus;
using distribution::TranscodeOptions;
using distribution::TranscodeOutcome;
using Bytes = std::vector<std::byte>;

std::string describe(const MatrixShape& shape, Filling filling) {
  return std::to_string(shape.batch) + " x " + std::to_string(shape.rows) + " x " + std::to_string(shape.cols) + " " +
         name_of(filling);
}

/// A blob's bytes and their copy on the device.
struct UploadedDistribution {
  explicit UploadedDistribution(Bytes bytes_in)
      : bytes(std::move(bytes_in)), memory(bytes), device(distribution::DeviceBlob::create(bytes, memory.data())) {
    EXPECT_TRUE(device) << device.error().message;
  }
  static UploadedDistribution encoded(std::span<const std::uint16_t> values, const MatrixShape& shape) {
    return UploadedDistribution(distribution::encode(values, shape, {.threads = 0}).value());
  }

  Bytes bytes;
  DeviceArray<std::byte> memory;
  Result<distribution::DeviceBlob> device;
};

DeviceArray<DeviceStatus> clear_status() {
  const std::vector<DeviceStatus> status(1);
  return DeviceArray<DeviceStatus>{std::span<const DeviceStatus>(status)};
}

void expect_decodes(const UploadedDistribution& blob, std::span<const std::uint16_t> expected, std::uint64_t row_stride,
                    std::uint64_t offset, const std::string& what) {
  ASSERT_TRUE(blob.device);
  GuardedOutput out(blob.device->shape(), row_stride, offset);
  const auto status = clear_status();
  for (int run = 0; run < 2; ++run) {
    out.poison();
    const auto done = distribution::decode(*blob.device, out.data(), row_stride, status.data(), nullptr);
    ASSERT_TRUE(done) << what << ": " << done.error().message;
    out.check(expected, what + (run == 0 ? "" : ", second run"));
  }
  EXPECT_TRUE(distribution::check(status.download()[0])) << what;
}

struct Transcoded {
  TranscodeOutcome outcome;
  Bytes blob;
};

/// Both halves, into a buffer of exactly the planned size less `missing_bytes`.
Transcoded transcode(const UploadedDistribution& blob, const TranscodeOptions& options,
                     std::uint64_t missing_bytes = 0) {
  Transcoded result;
  const auto needed = distribution::transcode_workspace_bytes(*blob.device, options);
  EXPECT_TRUE(needed) << needed.error().message;
  const DeviceArray<std::byte> workspace(needed.value_or(0));
  EXPECT_CUDA(cudaMemset(workspace.data(), 0xa5, workspace.size_bytes()));
  // Of which the first half writes only a part.
  const DeviceArray<TranscodeOutcome> outcome(std::vector<TranscodeOutcome>(1));
  const auto planned = distribution::plan_transcode(*blob.device, workspace.data(), options, outcome.data(), nullptr);
  EXPECT_TRUE(planned) << planned.error().message;
  const std::uint64_t size = outcome.download()[0].blob_bytes - missing_bytes;
  const DeviceArray<std::byte> out(size);
  EXPECT_CUDA(cudaMemset(out.data(), 0xa5, size));
  const auto done = distribution::finish_transcode(*blob.device, workspace.data(), options, out.data(), size,
                                                   outcome.data(), nullptr);
  EXPECT_TRUE(done) << done.error().message;
  result.outcome = outcome.download()[0];
  result.blob = out.download();
  return result;
}

void expect_transcodes(const UploadedDistribution& blob, const Bytes& expected, const TranscodeOptions& options,
                       const std::string& what) {
  ASSERT_TRUE(blob.device);
  const Transcoded found = transcode(blob, options);
  const auto sound = distribution::check(found.outcome.status);
  ASSERT_TRUE(sound) << what << ": " << sound.error().message;
  ASSERT_EQ(found.outcome.blob_bytes, expected.size()) << what;
  const auto [at, other] = std::mismatch(found.blob.begin(), found.blob.end(), expected.begin(), expected.end());
  ASSERT_TRUE(at == found.blob.end()) << what << ": byte " << at - found.blob.begin() << " of " << expected.size();
  EXPECT_TRUE(std::equal(found.outcome.header.begin(), found.outcome.header.end(), expected.begin())) << what;
}

class DistributionOnDevice : public DeviceTest {};
using DamagedDistributionOnDevice = DistributionOnDevice;
using SlowDistributionOnDevice = DistributionOnDevice;

const std::array<MatrixShape, 8> kShapes = {MatrixShape{1, 16, 64},   {1, 17, 65},   {1, 47, 504}, {3, 30, 600},
                                            MatrixShape{1, 64, 1024}, {2, 48, 1711}, {1, 300, 17}, {1, 5, 4096}};

TEST_F(DistributionOnDevice, EveryFillingDecodesAndTranscodes) {
  for (const MatrixShape& shape : kShapes) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto blob = UploadedDistribution::encoded(values, shape);
      expect_decodes(blob, values, shape.cols, 0, describe(shape, filling));
      expect_decodes(blob, values, shape.cols + 3, 1, describe(shape, filling) + ", padded");
      expect_transcodes(blob, encode(values, shape).value(), {}, describe(shape, filling));
    }
  }
}

TEST_F(DistributionOnDevice, EveryValueListAndPlane) {
  const RichTensor rich;
  const ListsAndValues lists;
  for (const auto& [values, shape] : {std::pair(&rich.values, rich.shape), std::pair(&lists.values, lists.shape)}) {
    const auto blob = UploadedDistribution::encoded(*values, shape);
    expect_decodes(blob, *values, shape.cols, 0, "every value");
    expect_transcodes(blob, encode(*values, shape).value(), {}, "every value");
  }
}

TEST_F(DistributionOnDevice, TranscodesInSlabs) {
  for (const MatrixShape& shape : {MatrixShape{1, 100, 192}, MatrixShape{3, 40, 1030}, MatrixShape{2, 300, 64}}) {
    const auto values = make_tensor(shape, Filling::kOutlierRows, 5);
    const auto blob = UploadedDistribution::encoded(values, shape);
    const auto blocks = format::distribution::cut_blocks(shape.batch, shape.rows, shape.cols);
    const std::uint64_t group = blocks.group_rows * shape.cols * 2;
    for (const std::uint64_t groups : {1U, 2U, 3U}) {
      expect_transcodes(blob, encode(values, shape).value(), {groups * group},
                        describe(shape, Filling::kOutlierRows) + ", " + std::to_string(groups) + " groups");
    }
    EXPECT_EQ(distribution::transcode_workspace_bytes(*blob.device, {group - 1}).error().code,
              ErrorCode::kInvalidArgument);
  }
}

TEST_F(DistributionOnDevice, MorePalettesThanFit) {
  const ManyPalettes tensor;
  const auto blob = UploadedDistribution::encoded(tensor.values, tensor.shape);
  const auto expected = encode(tensor.values, tensor.shape).value();
  for (const std::uint64_t slab : {0U, 1U << 16}) expect_transcodes(blob, expected, {slab}, "many palettes");
}

/// What transcoding a tensor needs.
struct TranscodeBuffers {
  explicit TranscodeBuffers(const MatrixShape& shape)
      : values(make_tensor(shape, Filling::kTrained, shape.rows)),
        expected(encode(values, shape, {.threads = 0}).value()),
        blob(UploadedDistribution::encoded(values, shape)),
        workspace(distribution::transcode_workspace_bytes(*blob.device).value()),
        out(expected.size()),
        outcome(1) {}

  std::vector<std::uint16_t> values;
  Bytes expected;
  UploadedDistribution blob;
  DeviceArray<std::byte> workspace, out;
  DeviceArray<TranscodeOutcome> outcome;
};

/// Several tensors in one graph, one after another and on two streams at a time: kernels begin before those in front of
/// them have ended, in one's buffers while another's are used.
TEST_F(DistributionOnDevice, ManyInAGraph) {
  std::vector<TranscodeBuffers> tensors;
  tensors.reserve(4);
  for (const MatrixShape& shape :
       {MatrixShape{1, 1000, 2048}, MatrixShape{1, 64, 1024}, MatrixShape{2, 300, 640}, MatrixShape{1, 17, 65}}) {
    tensors.emplace_back(shape);
  }
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) ASSERT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaEvent_t fork = nullptr, join = nullptr;
  ASSERT_CUDA(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  ASSERT_CUDA(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  ASSERT_CUDA(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeGlobal));
  ASSERT_CUDA(cudaEventRecord(fork, streams[0]));
  ASSERT_CUDA(cudaStreamWaitEvent(streams[1], fork, 0));
  for (int turn = 0; turn < 2; ++turn) {  // each tensor twice, always on the same stream
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      TranscodeBuffers& t = tensors[i];
      ASSERT_TRUE(distribution::transcode(*t.blob.device, t.workspace.data(), {}, t.out.data(), t.out.size_bytes(),
                                          t.outcome.data(), streams[i % 2]));
    }
  }
  ASSERT_CUDA(cudaEventRecord(join, streams[1]));
  ASSERT_CUDA(cudaStreamWaitEvent(streams[0], join, 0));
  cudaGraph_t graph = nullptr;
  ASSERT_CUDA(cudaStreamEndCapture(streams[0], &graph));
  cudaGraphExec_t replay = nullptr;
  ASSERT_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  for (int run = 0; run < 20; ++run) {
    for (TranscodeBuffers& t : tensors) {
      ASSERT_CUDA(cudaMemset(t.out.data(), 0xa5, t.out.size_bytes()));
      ASSERT_CUDA(cudaMemset(t.workspace.data(), 0xa5, t.workspace.size_bytes()));
    }
    ASSERT_CUDA(cudaDeviceSynchronize());
    ASSERT_CUDA(cudaGraphLaunch(replay, streams[0]));
    ASSERT_CUDA(cudaStreamSynchronize(streams[0]));
    for (TranscodeBuffers& t : tensors) {
      ASSERT_TRUE(distribution::check(t.outcome.download()[0].status)) << run;
      ASSERT_TRUE(t.out.download() == t.expected) << run << ", " << t.expected.size() << " bytes";
    }
  }
  ASSERT_CUDA(cudaGraphExecDestroy(replay));
  ASSERT_CUDA(cudaGraphDestroy(graph));
  for (cudaEvent_t event : {fork, join}) ASSERT_CUDA(cudaEventDestroy(event));
  for (cudaStream_t stream : streams) ASSERT_CUDA(cudaStreamDestroy(stream));
}

TEST_F(DistributionOnDevice, TheRuntimeBlobIsUsedAsItLies) {
  const MatrixShape shape{1, 200, 640};
  const auto values = make_tensor(shape, Filling::kTrained, 4);
  const auto blob = UploadedDistribution::encoded(values, shape);
  ASSERT_TRUE(blob.device);
  const DeviceArray<std::byte> workspace(distribution::transcode_workspace_bytes(*blob.device).value());
  const DeviceArray<std::byte> out(encode_bound(shape).value());
  const DeviceArray<TranscodeOutcome> outcome(1);
  ASSERT_TRUE(distribution::transcode(*blob.device, workspace.data(), {}, out.data(), out.size_bytes(), outcome.data(),
                                      nullptr));
  const auto runtime = distribution::transcoded_blob(outcome.download()[0], out.data());
  ASSERT_TRUE(runtime) << runtime.error().message;
  EXPECT_EQ(runtime->shape(), shape);
  GuardedOutput decoded(shape, shape.cols, 0);
  ASSERT_TRUE(decode(*runtime, decoded.data(), shape.cols, nullptr));
  decoded.check(values, "transcoded, then decoded");
}

/// What the CPU says of the same bytes, and nothing outside of them touched.
void expect_as_on_cpu(const Bytes& bytes, const std::string& what) {
  const UploadedDistribution blob(bytes);
  ASSERT_TRUE(blob.device) << what;
  const MatrixShape shape = blob.device->shape();
  std::vector<std::uint16_t> expected(shape.batch * shape.rows * shape.cols);
  const auto on_cpu = distribution::decode(bytes, expected, {.verify_checksums = false});
  GuardedOutput out(shape, shape.cols, 0);
  const auto status = clear_status();
  ASSERT_TRUE(distribution::decode(*blob.device, out.data(), shape.cols, status.data(), nullptr));
  const auto sound = distribution::check(status.download()[0]);
  EXPECT_EQ(sound.has_value(), on_cpu.has_value()) << what;
  if (!on_cpu) {
    EXPECT_EQ(sound ? ErrorCode::kOk : sound.error().code, ErrorCode::kCorruptPayload) << what;
    ASSERT_CUDA(cudaMemcpy(expected.data(), out.data(), 2 * expected.size(), cudaMemcpyDeviceToHost));
  }
  out.check(expected, what);
}

Bytes resealed(Bytes bytes) {
  format::distribution::Header h;
  std::memcpy(&h, bytes.data(), sizeof h);
  codec::distribution::seal_blob(bytes, h.content_checksum, h.payload_checksum);
  return bytes;
}

TEST_F(DamagedDistributionOnDevice, FlippedBitsAndNoise) {
  Random random(6);
  for (const auto& [shape, filling] : {std::pair(MatrixShape{2, 40, 100}, Filling::kEscapes1p5),
                                       std::pair(MatrixShape{1, 17, 1030}, Filling::kRareSpecials)}) {
    const Bytes original = distribution::encode(make_tensor(shape, filling, 2), shape).value();
    const auto front = codec::distribution::open_front(original).value();
    ASSERT_EQ(front.layout(), format::distribution::Layout::kCoded);
    for (int round = 0; round < 150; ++round) {
      Bytes damaged = original;
      const std::uint64_t stream = front.front_bytes();
      const std::uint64_t at = stream + random.below(damaged.size() - stream);
      const std::uint64_t end = round % 3 == 0 ? std::min<std::uint64_t>(damaged.size(), at + 2000) : at + 1;
      for (std::uint64_t i = at; i < end; ++i) damaged[i] ^= static_cast<std::byte>(1 + random.below(255));
      expect_as_on_cpu(resealed(damaged), describe(shape, filling) + ", round " + std::to_string(round));
    }
  }
}

/// Device bytes that are not those that were validated: anything may come out, from inside the blob.
TEST_F(DamagedDistributionOnDevice, OtherBytesThanThoseValidated) {
  Random random(7);
  const MatrixShape shape{2, 40, 100};
  const Bytes original = distribution::encode(make_tensor(shape, Filling::kEscapes1p5, 2), shape).value();
  for (int round = 0; round < 30; ++round) {
    const UploadedDistribution blob(original);
    ASSERT_TRUE(blob.device);
    Bytes other = original;
    for (std::size_t i = 256; i < other.size(); ++i) {
      if (random.below(4) == 0) other[i] = static_cast<std::byte>(random.next());
    }
    ASSERT_CUDA(cudaMemcpy(blob.memory.data(), other.data(), other.size(), cudaMemcpyHostToDevice));
    GuardedOutput out(shape, shape.cols, 0);
    const auto status = clear_status();
    ASSERT_TRUE(distribution::decode(*blob.device, out.data(), shape.cols, status.data(), nullptr));
    std::vector<std::uint16_t> found(shape.batch * shape.rows * shape.cols);
    ASSERT_CUDA(cudaMemcpy(found.data(), out.data(), 2 * found.size(), cudaMemcpyDeviceToHost));
    out.check(found, "round " + std::to_string(round));  // the guard bands
    (void)transcode(blob, {});
  }
}

TEST_F(DistributionOnDevice, TranscodingSaysWhatIsWrong) {
  const MatrixShape shape{1, 40, 200};
  const Bytes original = distribution::encode(make_tensor(shape, Filling::kTrained, 1), shape).value();
  const std::uint64_t stream = codec::distribution::open_front(original).value().front_bytes();
  const auto code = [](const Transcoded& found) {
    const auto sound = distribution::check(found.outcome.status);
    return sound ? ErrorCode::kOk : sound.error().code;
  };
  Bytes damaged = original;
  damaged[stream + 5] ^= std::byte{1};
  EXPECT_EQ(code(transcode(UploadedDistribution(damaged), {})), ErrorCode::kChecksumMismatch);
  for (std::size_t i = damaged.size() - 600; i < damaged.size() - 500; ++i) damaged[i] ^= std::byte{0xff};
  EXPECT_EQ(code(transcode(UploadedDistribution(damaged), {})), ErrorCode::kCorruptPayload);
  const Transcoded small = transcode(UploadedDistribution(original), {}, 128);
  EXPECT_EQ(code(small), ErrorCode::kBufferTooSmall);
  EXPECT_TRUE(std::all_of(small.blob.begin(), small.blob.end(), [](std::byte b) { return b == std::byte{0xa5}; }));
}

TEST_F(DistributionOnDevice, RefusesUnsoundArguments) {
  const MatrixShape shape{1, 40, 200};
  const auto blob = UploadedDistribution::encoded(make_tensor(shape, Filling::kTrained, 1), shape);
  ASSERT_TRUE(blob.device);
  const DeviceArray<std::uint16_t> out(40 * 200);
  const auto status = clear_status();
  const auto refused = [](const auto& result, const std::string& part) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  refused(distribution::decode(*blob.device, out.data(), 199, status.data(), nullptr), "row_stride=199");
  refused(distribution::decode(*blob.device, nullptr, 200, status.data(), nullptr), "values");
  refused(distribution::decode(*blob.device, out.data(), 200, nullptr, nullptr), "status");
  refused(distribution::DeviceBlob::create(blob.bytes, blob.memory.data() + 64), "multiple of 128");
  TranscodeOutcome outcome;
  refused(distribution::plan_transcode(*blob.device, nullptr, {}, &outcome, nullptr), "workspace");
  refused(distribution::finish_transcode(*blob.device, blob.memory.data(), {}, nullptr, 0, &outcome, nullptr), "out");
  EXPECT_EQ(distribution::DeviceBlob::create(std::span(blob.bytes).first(300), blob.memory.data()).error().code,
            ErrorCode::kTruncated);
}

TEST_F(DistributionOnDevice, TheCInterfaceDoesTheSame) {
  const MatrixShape shape{1, 60, 300};
  const auto values = make_tensor(shape, Filling::kTrained, 1);
  const auto uploaded = UploadedDistribution::encoded(values, shape);
  std::uint64_t front = 0;
  ASSERT_EQ(unweight_distribution_front_bytes(uploaded.bytes.data(), 256, &front), UNWEIGHT_OK);
  unweight_distribution_device_blob* blob = nullptr;
  ASSERT_EQ(unweight_distribution_device_blob_create(uploaded.bytes.data(), front, uploaded.memory.data(), &blob),
            UNWEIGHT_OK)
      << unweight_last_error_message();
  const DeviceArray<std::uint16_t> decoded(values.size());
  const auto status = clear_status();
  ASSERT_EQ(unweight_distribution_device_decode(blob, decoded.data(), shape.cols, &status.data()->word, nullptr),
            UNWEIGHT_OK);
  EXPECT_EQ(decoded.download(), values);
  EXPECT_EQ(unweight_distribution_check_status(status.download()[0].word), UNWEIGHT_OK);
  std::size_t workspace_bytes = 0;
  ASSERT_EQ(unweight_transcode_workspace_bytes(blob, 0, &workspace_bytes), UNWEIGHT_OK);
  const DeviceArray<std::byte> workspace(workspace_bytes);
  const DeviceArray<unweight_transcode_outcome> outcome(1);
  ASSERT_EQ(unweight_transcode_plan(blob, workspace.data(), 0, outcome.data(), nullptr), UNWEIGHT_OK);
  const auto expected = encode(values, shape).value();
  const DeviceArray<std::byte> out(expected.size());
  ASSERT_EQ(unweight_transcode_finish(blob, workspace.data(), 0, out.data(), out.size_bytes(), outcome.data(), nullptr),
            UNWEIGHT_OK);
  EXPECT_TRUE(out.download() == expected);
  const auto found = outcome.download()[0];
  unweight_device_blob* runtime = nullptr;
  ASSERT_EQ(unweight_transcoded_blob(&found, out.data(), &runtime), UNWEIGHT_OK) << unweight_last_error_message();
  unweight_device_blob_destroy(runtime);
  unweight_distribution_device_blob_destroy(blob);

  EXPECT_EQ(unweight_distribution_device_decode(nullptr, decoded.data(), 1, nullptr, nullptr),
            UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_device_blob_create(nullptr, 5, nullptr, &blob), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_transcode_workspace_bytes(nullptr, 0, &workspace_bytes), UNWEIGHT_INVALID_ARGUMENT);
  EXPECT_EQ(unweight_distribution_check_status(~std::uint64_t{0}), UNWEIGHT_INVALID_ARGUMENT);
}

/// More blocks than warps on the device; graph replay; two streams would share nothing.
TEST_F(SlowDistributionOnDevice, LargeMatrices) {
  for (const MatrixShape& shape :
       {MatrixShape{1, 20480, 4096}, MatrixShape{7, 1000, 1400}, MatrixShape{1, 100000, 40}}) {
    const auto values = make_tensor(shape, Filling::kTrained, 1);
    const auto blob = UploadedDistribution::encoded(values, shape);
    expect_decodes(blob, values, shape.cols, 0, describe(shape, Filling::kTrained));
    const auto expected = encode(values, shape, {.threads = 0}).value();
    expect_transcodes(blob, expected, {}, describe(shape, Filling::kTrained));
    expect_transcodes(blob, expected, {std::uint64_t{2} << 20}, describe(shape, Filling::kTrained) + ", slabs");
  }
}

}  // namespace
}  // namespace unweight::test
