// SPDX-License-Identifier: Apache-2.0
//
// The kernel that decodes the distribution form on the CPU (tests/emulation): its real source, the launcher's own
// parameters, blobs that end where memory does.
#include "emulation/device_language.hpp"
#include "emulation/guarded_bytes.hpp"
#include "emulation/placed_distribution.hpp"
#include "support/distribution_blobs.hpp"
#include <array>
#include <codec/distribution_open.hpp>
#include <codec/distribution_reference.hpp>
#include <cuda/kernels/sm90_distribution_decode.cuh>
#include <cuda/launch/distribution_params.hpp>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

using format::distribution::View;

/// A warp or two: thread blocks of 32 take the emulator long to begin.
template <std::uint32_t Warps>
using Config = sm90::DistributionDecodeConfig<Warps>;

struct Decoded {
  std::vector<std::uint16_t> memory;  ///< all of it, with what was not to be written
  std::uint64_t status;
};

constexpr std::uint16_t kPoison = 0xa5a5;
constexpr std::size_t kGuard = 64;

template <std::uint32_t Warps>
Decoded run(const launch::PlacedDistributionBlob& blob, std::uint64_t row_stride, std::uint64_t seed,
            std::uint32_t multiprocessors = 2) {
  using Traits = sm90::DistributionDecodeTraits<Config<Warps>>;
  Decoded out{std::vector<std::uint16_t>(2 * kGuard + blob.shape.batch * blob.shape.rows * row_stride, kPoison), 0};
  const auto params = launch::distribution_decode_params(
      blob, 0, launch::row_groups(blob), {out.memory.data() + kGuard, row_stride, blob.shape.rows}, &out.status);
  emulation::launch({launch::distribution_decode_grid(params, multiprocessors), Traits::kThreads},
                    Traits::shared_bytes(blob.class_count), seed,
                    [&] { sm90::distribution_decode_kernel<Config<Warps>>(params); });
  return out;
}

/// The memory that a right decode leaves.
std::vector<std::uint16_t> wanted_memory(std::span<const std::uint16_t> values, const MatrixShape& shape,
                                         std::uint64_t row_stride) {
  std::vector<std::uint16_t> wanted(2 * kGuard + shape.batch * shape.rows * row_stride, kPoison);
  for (std::uint64_t row = 0; row < shape.batch * shape.rows; ++row) {
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(row * shape.cols), shape.cols,
                wanted.begin() + static_cast<std::ptrdiff_t>(kGuard + row * row_stride));
  }
  return wanted;
}

TEST(DistributionDecodeEmulation, EveryFillingAndShape) {
  std::uint64_t seed = 0;
  for (const MatrixShape& shape : {MatrixShape{1, 40, 130}, MatrixShape{3, 17, 96}, MatrixShape{2, 5, 1100},
                                   MatrixShape{1, 300, 17}, MatrixShape{1, 1, 4096}, MatrixShape{1, 33, 128}}) {
    for (const Filling filling : kAllFillings) {
      const auto values = make_tensor(shape, filling, 5);
      const auto bytes = distribution::encode(values, shape).value();
      const View view = codec::distribution::open_blob(bytes).value();
      if (view.layout() != format::distribution::Layout::kCoded) continue;
      const GuardedBytes memory(bytes);
      for (const std::uint64_t stride : {shape.cols, shape.cols + 7}) {
        const auto blob = place(bytes, memory);
        const Decoded out = ++seed % 2 == 0 ? run<1>(blob, stride, seed) : run<3>(blob, stride, seed);
        EXPECT_EQ(out.status, 0U) << name_of(filling) << " " << shape.rows << " x " << shape.cols;
        EXPECT_TRUE(out.memory == wanted_memory(values, shape, stride))
            << name_of(filling) << " " << shape.rows << " x " << shape.cols << " stride " << stride;
      }
    }
  }
}

/// Blobs that no encoder of ours makes: any tables and scales, up to 8 classes, every rank, escapes anywhere.
TEST(DistributionDecodeEmulation, EveryValidBlob) {
  Random random(77);
  for (std::uint64_t round = 0; round < 40; ++round) {
    const Bytes bytes = random_distribution_blob(random);
    const View view = codec::distribution::open_blob(bytes).value();
    const auto values = codec::distribution::reference_decode(bytes);
    ASSERT_TRUE(values);
    const GuardedBytes memory(bytes);
    const auto blob = place(bytes, memory);
    const Decoded out = run<2>(blob, blob.shape.cols, round);
    EXPECT_EQ(out.status, 0U) << "round " << round;
    EXPECT_TRUE(out.memory == wanted_memory(*values, blob.shape, blob.shape.cols)) << "round " << round;
  }
}

/// So many warps that some have no block: those make the tables, alone, while the others find their blocks. And, with
/// fewer multiprocessors, so many blocks that none is idle, then one that does not make a round full.
TEST(DistributionDecodeEmulation, TablesByWarpsWithoutABlock) {
  const MatrixShape shape{1, 170, 1100};  // 22 blocks
  const auto values = make_tensor(shape, Filling::kTrained, 5);
  const auto bytes = distribution::encode(values, shape).value();
  ASSERT_EQ(codec::distribution::open_blob(bytes).value().layout(), format::distribution::Layout::kCoded);
  const GuardedBytes memory(bytes);
  const auto blob = place(bytes, memory);
  for (const std::uint32_t multiprocessors : {1U, 2U, 7U, 40U}) {
    const Decoded out = run<12>(blob, shape.cols, multiprocessors, multiprocessors);
    EXPECT_EQ(out.status, 0U) << multiprocessors;
    EXPECT_TRUE(out.memory == wanted_memory(values, shape, shape.cols)) << multiprocessors;
  }
}

/// All 65,536 values among trained ones, most of them escapes.
TEST(DistributionDecodeEmulation, EveryValue) {
  const RichTensor tensor;
  const auto bytes = distribution::encode(tensor.values, tensor.shape).value();
  const View view = codec::distribution::open_blob(bytes).value();
  ASSERT_EQ(view.layout(), format::distribution::Layout::kCoded);
  const GuardedBytes memory(bytes);
  const auto blob = place(bytes, memory);
  const Decoded out = run<4>(blob, tensor.shape.cols, 1, 3);
  EXPECT_EQ(out.status, 0U);
  EXPECT_TRUE(out.memory == wanted_memory(tensor.values, tensor.shape, tensor.shape.cols));
}

/// What the kernel must do with a blob whose header and tables are sound: the reference's values, or a report; nothing
/// beyond the blob read, nothing beyond the tensor written.
void expect_as_reference(const Bytes& bytes, const std::string& what) {
  const auto front = codec::distribution::open_front(bytes);
  ASSERT_TRUE(front);
  const GuardedBytes memory(bytes);
  const launch::PlacedDistributionBlob blob = place(bytes, memory);
  const Decoded out = run<1>(blob, blob.shape.cols, 1, 1);
  const auto view = codec::distribution::open_blob(bytes);
  const auto values = view ? codec::distribution::reference_decode(bytes) : std::nullopt;
  const std::vector<std::uint16_t>& memory_found = out.memory;
  const auto untouched = [](std::uint16_t value) { return value == kPoison; };
  EXPECT_TRUE(std::all_of(memory_found.begin(), memory_found.begin() + kGuard, untouched)) << what;
  EXPECT_TRUE(std::all_of(memory_found.end() - kGuard, memory_found.end(), untouched)) << what;
  if (!values) {
    EXPECT_EQ(device::finding_of(out.status), device::Finding::kCorruptBlock) << what;
    EXPECT_LT(device::number_of(out.status), blob.blocks().count) << what;
    return;
  }
  EXPECT_EQ(out.status, 0U) << what;
  EXPECT_TRUE(memory_found == wanted_memory(*values, blob.shape, blob.shape.cols)) << what;
}

/// Every bit of a small blob, or one of `step`.
void expect_flipped_bits_stay_inside(const Bytes& original, std::size_t step) {
  ASSERT_EQ(distribution::inspect(original)->layout, distribution::Layout::kCoded);
  std::size_t opened = 0;
  for (std::size_t bit = 0; bit < original.size() * 8; bit += step) {
    auto blob = original;
    blob[bit / 8] ^= std::byte{1} << bit % 8;
    if (!format::distribution::read_header(blob)) continue;
    reseal_distribution(blob);
    const auto front = codec::distribution::open_front(blob);
    if (!front || front->values() > 4096 || front->layout() != format::distribution::Layout::kCoded) continue;
    ++opened;
    expect_as_reference(blob, "bit " + std::to_string(bit));
  }
  EXPECT_GT(opened * step, original.size() * 2);
}

TEST(DistributionDecodeEmulation, FlippedBitsStayInside) {
  expect_flipped_bits_stay_inside(distribution_blob({1, 20, 64}, Filling::kTwoSymbols), 37);
  expect_flipped_bits_stay_inside(distribution_blob({1, 19, 130}, Filling::kRareSpecials), 331);
}

TEST(DistributionDecodeEmulationSlow, EveryFlippedBitStaysInside) {
  expect_flipped_bits_stay_inside(distribution_blob({1, 20, 64}, Filling::kTwoSymbols), 1);
  expect_flipped_bits_stay_inside(distribution_blob({1, 19, 130}, Filling::kRareSpecials), 2);
}

/// Bytes that are cut off or come from elsewhere: the stream's end is noise, or the tables are.
TEST(DistributionDecodeEmulation, RandomMutationsStayInside) {
  Random random(4);
  const std::vector<Bytes> originals = {distribution_blob({2, 40, 100}, Filling::kEscapes1p5),
                                        distribution_blob({1, 17, 1030}, Filling::kTrained),
                                        random_distribution_blob(random)};
  std::size_t opened = 0;
  for (int round = 0; round < 150; ++round) {
    auto blob = originals[static_cast<std::size_t>(round) % originals.size()];
    const auto h = distribution_header(blob);
    for (std::uint64_t i = 1 + random.below(4); i > 0; --i) {
      const std::uint64_t begin = random.below(3) == 0 ? 256 : h.stream_offset;
      const std::uint64_t at = begin + random.below(blob.size() - begin);
      const std::uint64_t end = random.below(4) == 0 ? std::min<std::uint64_t>(blob.size(), at + 4096) : at + 1;
      for (std::uint64_t k = at; k < end; ++k) blob[k] = static_cast<std::byte>(random.next());
    }
    reseal_distribution(blob);
    const auto front = codec::distribution::open_front(blob);
    if (!front) continue;
    ++opened;
    expect_as_reference(blob, "round " + std::to_string(round));
  }
  EXPECT_GT(opened, 50U);
}

/// The device's bytes are not those that were validated: anything may come out, from inside the blob.
TEST(DistributionDecodeEmulation, TablesThatChangedStayInside) {
  Random random(9);
  const auto original = distribution_blob({2, 40, 100}, Filling::kEscapes1p5);
  const View view = codec::distribution::open_blob(original).value();
  for (int round = 0; round < 60; ++round) {
    const GuardedBytes memory(original);
    for (std::size_t k = 256; k < memory.size_bytes(); ++k) {
      if (round < 30 && k >= view.front_bytes()) break;
      if (random.below(4) == 0) memory.data()[k] = static_cast<std::byte>(random.next());
    }
    const auto blob = place(original, memory);
    const Decoded out = run<2>(blob, blob.shape.cols, 1, 1);
    for (std::size_t i = 0; i < kGuard; ++i) {
      ASSERT_EQ(out.memory[i], kPoison);
      ASSERT_EQ(out.memory[out.memory.size() - 1 - i], kPoison);
    }
  }
}

}  // namespace
}  // namespace unweight::test
