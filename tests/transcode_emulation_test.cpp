// SPDX-License-Identifier: Apache-2.0
//
// Transcoding on the device, on the CPU (tests/emulation): the kernels' real sources in the launcher's own order. The
// runtime blobs must be those of the CPU's encoder, byte for byte.
#include "emulation/device_language.hpp"
#include "emulation/guarded_bytes.hpp"
#include "emulation/placed_distribution.hpp"
#include "support/distribution_blobs.hpp"
#include <codec/distribution_encode.hpp>
#include <codec/distribution_open.hpp>
#include <cuda/device/block_hash.cuh>
#include <cuda/launch/transcode_params.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace unweight::test {
namespace {

/// What launches kernels here.
class Emulator {
 public:
  explicit Emulator(std::uint64_t seed) : seed_(seed) {}

  void clear(void* memory, std::size_t bytes) { std::memset(memory, 0, bytes); }

  template <class Kernel, class... Arguments>
  void launch(Kernel* kernel, std::uint32_t grid, std::uint32_t threads, std::uint32_t shared_bytes,
              const Arguments&... arguments) {
    emulation::launch({grid, threads}, shared_bytes, ++seed_, [&] { kernel(arguments...); });
  }

  /// Kernels run one after another here.
  template <class Kernel, class... Arguments>
  void launch_dependent(Kernel* kernel, std::uint32_t grid, std::uint32_t threads, std::uint32_t shared_bytes,
                        const Arguments&... arguments) {
    launch(kernel, grid, threads, shared_bytes, arguments...);
  }

  void decode(const sm90::DistributionDecodeParams& params, std::uint32_t class_count) {
    using Config = sm90::DistributionDecodeConfig<2>;
    using Traits = sm90::DistributionDecodeTraits<Config>;
    launch(sm90::distribution_decode_kernel<Config>, launch::distribution_decode_grid(params, multiprocessors()),
           Traits::kThreads, Traits::shared_bytes(class_count), params);
  }

  [[nodiscard]] std::uint32_t multiprocessors() const { return 2; }

 private:
  std::uint64_t seed_;
};

struct Transcoded {
  std::uint64_t planned_bytes = 0;
  distribution::TranscodeOutcome outcome;
  std::vector<std::byte> blob;
};

Transcoded transcode(const Bytes& bytes, std::uint64_t slab_bytes, std::uint64_t seed,
                     std::uint64_t missing_bytes = 0) {
  const GuardedBytes memory(bytes);
  const auto blob = place(bytes, memory);
  const auto job = launch::TranscodeJob::make(blob, slab_bytes);
  if (!job) throw std::runtime_error("no job");
  const GuardedBytes workspace(job->workspace_bytes());
  std::memset(workspace.data(), 0xa5, workspace.size_bytes());
  Emulator emulator(seed);
  Transcoded result;
  job->plan(workspace.data(), &result.outcome, emulator);
  result.planned_bytes = result.outcome.blob_bytes;
  const GuardedBytes out(result.planned_bytes - missing_bytes);
  std::memset(out.data(), 0xa5, out.size_bytes());
  job->finish(workspace.data(), out.data(), out.size_bytes(), &result.outcome, emulator);
  result.blob.assign(out.data(), out.data() + out.size_bytes());
  return result;
}

void expect_transcodes(const Bytes& bytes, const std::vector<std::byte>& expected, std::uint64_t slab_bytes,
                       std::uint64_t seed, const std::string& what) {
  const Transcoded found = transcode(bytes, slab_bytes, seed);
  ASSERT_EQ(found.outcome.status.word, 0U) << what;
  EXPECT_EQ(found.planned_bytes, expected.size()) << what;
  EXPECT_EQ(found.outcome.blob_bytes, expected.size()) << what;
  EXPECT_TRUE(std::equal(found.outcome.header.begin(), found.outcome.header.end(), expected.begin())) << what;
  const auto [at, other] = std::mismatch(found.blob.begin(), found.blob.end(), expected.begin(), expected.end());
  EXPECT_TRUE(at == found.blob.end() && other == expected.end())
      << what << ": byte " << at - found.blob.begin() << " of " << expected.size();
}

TEST(TranscodeEmulation, EveryFillingAndShape) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 48, 640}, MatrixShape{3, 17, 200}, MatrixShape{2, 21, 1100},
                                   MatrixShape{1, 150, 61}, MatrixShape{1, 5, 8}, MatrixShape{1, 16, 64}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto bytes = distribution::encode(values, shape).value();
      const auto expected = encode(values, shape).value();
      const std::string what = name_of(filling) + " " + std::to_string(shape.batch) + " x " +
                               std::to_string(shape.rows) + " x " + std::to_string(shape.cols);
      expect_transcodes(bytes, expected, 0, ++seed, what);
    }
  }
}

/// A raw distribution blob of values for which tiles pay.
TEST(TranscodeEmulation, FromRawBlobs) {
  const MatrixShape shape{2, 37, 330};
  for (const Filling filling : {Filling::kTrained, Filling::kUniformBits}) {
    const auto values = make_tensor(shape, filling, 5);
    Bytes bytes(encode_bound(shape).value());
    bytes.resize(codec::distribution::write_raw(values, shape, bytes, 1));
    for (const std::uint64_t slab : {std::uint64_t{0}, std::uint64_t{2 * 16 * 330 * 2}}) {
      expect_transcodes(bytes, encode(values, shape).value(), slab, 1, name_of(filling));
    }
  }
}

/// Part by part: slabs that end anywhere.
TEST(TranscodeEmulation, InSlabs) {
  for (const MatrixShape& shape :
       {MatrixShape{1, 100, 192}, MatrixShape{3, 40, 1030}, MatrixShape{2, 300, 64}, MatrixShape{1, 1300, 64}}) {
    for (const Filling filling : {Filling::kTrained, Filling::kOutlierRows}) {
      const auto values = make_tensor(shape, filling, 5);
      const auto bytes = distribution::encode(values, shape).value();
      ASSERT_EQ(distribution::inspect(bytes)->layout, distribution::Layout::kCoded);
      const auto blocks = format::distribution::cut_blocks(shape.batch, shape.rows, shape.cols);
      const std::uint64_t group = blocks.group_rows * shape.cols * 2;
      for (const std::uint64_t groups : {1U, 2U, 3U}) {
        expect_transcodes(bytes, encode(values, shape).value(), groups * group + 2, groups,
                          name_of(filling) + ", " + std::to_string(groups) + " groups a slab");
      }
      const GuardedBytes memory(bytes);
      EXPECT_FALSE(launch::TranscodeJob::make(place(bytes, memory), group - 1));
    }
  }
}

/// All 65,536 values, exponent planes, long lists.
TEST(TranscodeEmulation, EveryValueListAndPlane) {
  const RichTensor rich;
  const ListsAndValues lists;
  for (const auto& [values, shape] : {std::pair(&rich.values, rich.shape), std::pair(&lists.values, lists.shape)}) {
    const auto expected = encode(*values, shape).value();
    ASSERT_EQ(inspect(expected)->layout, BlobLayout::kTiled);
    EXPECT_GT(inspect(expected)->escaped_tiles, 0U);
    expect_transcodes(distribution::encode(*values, shape).value(), expected, 0, 3, std::to_string(shape.rows));
  }
}

TEST(TranscodeEmulation, MorePalettesThanFit) {
  const ManyPalettes tensor;
  const auto expected = encode(tensor.values, tensor.shape).value();
  const auto info = inspect(expected).value();
  ASSERT_EQ(info.layout, BlobLayout::kTiled);
  ASSERT_EQ(info.palette_count, format::kMaxPalettes);
  const auto bytes = distribution::encode(tensor.values, tensor.shape).value();
  expect_transcodes(bytes, expected, 0, 1, "whole");
  expect_transcodes(bytes, expected, 1 << 16, 1, "slabs");
}

/// Segments of exactly 64 tiles, of tiles of many strips, and rows with more values of an exponent than 16 bits count.
TEST(TranscodeEmulation, SegmentsAndLongRows) {
  for (const MatrixShape& shape : {MatrixShape{1, 64, 1024}, MatrixShape{1, 1100, 50}, MatrixShape{1, 2, 66'000}}) {
    for (const Filling filling : {Filling::kTrained, Filling::kConstant, Filling::kEscapes1p5}) {
      const auto values = make_tensor(shape, filling, 3);
      expect_transcodes(distribution::encode(values, shape).value(), encode(values, shape).value(), 0, shape.cols,
                        name_of(filling) + ", " + std::to_string(shape.cols) + " columns");
    }
  }
}

/// The second half again, into another place.
TEST(TranscodeEmulation, FinishesAgain) {
  const MatrixShape shape{1, 200, 900};
  const auto values = make_tensor(shape, Filling::kTrained, 3);
  const auto bytes = distribution::encode(values, shape).value();
  const GuardedBytes memory(bytes);
  const auto job = launch::TranscodeJob::make(place(bytes, memory), 0);
  ASSERT_TRUE(job);
  const GuardedBytes workspace(job->workspace_bytes());
  Emulator emulator(1);
  distribution::TranscodeOutcome outcome;
  job->plan(workspace.data(), &outcome, emulator);
  for (int run = 0; run < 2; ++run) {
    const GuardedBytes out(outcome.blob_bytes);
    job->finish(workspace.data(), out.data(), out.size_bytes(), &outcome, emulator);
    EXPECT_EQ(outcome.status.word, 0U);
    EXPECT_TRUE(std::ranges::equal(out.bytes(), encode(values, shape).value())) << run;
  }
}

TEST(TranscodeEmulation, EmptyTensors) {
  for (const MatrixShape& shape : {MatrixShape{1, 0, 0}, MatrixShape{0, 5, 5}, MatrixShape{3, 4, 0}}) {
    expect_transcodes(distribution::encode({}, shape).value(), encode({}, shape).value(), 0, 1, "empty");
  }
}

TEST(TranscodeEmulation, SaysWhatIsWrong) {
  const MatrixShape shape{1, 40, 200};
  const auto original = distribution::encode(make_tensor(shape, Filling::kTrained, 1), shape).value();
  const auto h = distribution_header(original);

  // Another value: every block decodes, but not to what was encoded.
  auto bytes = original;
  bytes[h.stream_offset + 5] ^= std::byte{1};
  reseal_distribution(bytes);
  EXPECT_EQ(device::finding_of(transcode(bytes, 0, 1).outcome.status.word), device::Finding::kContentChecksum);

  // A block without sense: the lowest one is named.
  bytes = original;
  for (std::size_t i = bytes.size() - 600; i < bytes.size() - 500; ++i) bytes[i] ^= std::byte{0xff};
  reseal_distribution(bytes);
  const auto corrupt = transcode(bytes, 0, 1);
  EXPECT_EQ(device::finding_of(corrupt.outcome.status.word), device::Finding::kCorruptBlock);
  EXPECT_EQ(device::number_of(corrupt.outcome.status.word), 0U);
  EXPECT_TRUE(std::all_of(corrupt.blob.begin(), corrupt.blob.end(), [](std::byte b) { return b == std::byte{0xa5}; }));

  const auto small = transcode(original, 0, 1, 128);
  EXPECT_EQ(device::finding_of(small.outcome.status.word), device::Finding::kTooLarge);
  EXPECT_TRUE(std::all_of(small.blob.begin(), small.blob.end(), [](std::byte b) { return b == std::byte{0xa5}; }));
}

// ---- the checksum ---------------------------------------------------------------------------------------------------

void hash_kernel(const std::byte* data, std::uint64_t size, std::uint64_t* hash) {
  __shared__ device::HashStorage storage;
  const std::uint64_t found = device::hash_range(data, size, storage);
  if (threadIdx.x == 0) *hash = found;
}

TEST(TranscodeEmulation, HashesOfEveryLength) {
  Random random(1);
  std::vector<std::byte> bytes(200'000);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random.next());
  const auto expect_hash = [&](std::size_t size) {
    const GuardedBytes memory((size + 127) / 128 * 128);
    std::memcpy(memory.data(), bytes.data(), size);
    std::uint64_t found = 0;
    emulation::launch({1, device::kHashThreads}, 0, size, [&] { hash_kernel(memory.data(), size, &found); });
    ASSERT_EQ(found, XXH3_64bits(bytes.data(), size)) << size;
  };
  for (std::size_t size = 0; size <= device::kShortHashBytes; ++size) {
    ASSERT_EQ(device::xxh3_short(bytes.data(), static_cast<std::uint32_t>(size)), XXH3_64bits(bytes.data(), size));
  }
  for (std::size_t size = 230; size < 1400; size += 7) expect_hash(size);
  // Up to several rounds of 32 blocks, which end in the middle and at the end.
  for (const std::size_t size :
       {2048U, 2049U, 32U * 1024, 32U * 1024 + 1, 33U * 1024, 33U * 1024 + 1, 34U * 1024 + 64, 40'000U, 64U * 1024,
        64U * 1024 + 1, 96U * 1024 + 1, 100'000U, 128U * 1024 + 1, 200'000U}) {
    expect_hash(size);
  }
}

}  // namespace
}  // namespace unweight::test
