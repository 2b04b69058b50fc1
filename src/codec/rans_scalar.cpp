// SPDX-License-Identifier: Apache-2.0
//
// The portable functions of the distribution form, and the choice among implementations.
#include <algorithm>
#include <codec/rans_kernels.hpp>
#include <codec/tile_kernels.hpp>
#include <cstring>
#include <string_view>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;

RowSums sum_row_scalar(const std::uint16_t* values, std::size_t count) {
  RowSums sums;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t prefix = prefix_of(values[i]);
    sums.prefixes += prefix;
    sums.count += prefix != 0;
  }
  return sums;
}

void split_row_scalar(const std::uint16_t* values, std::uint32_t cols, const EncodeRow& row, std::uint8_t* ranks,
                      std::byte* suffixes) {
  const EncodeTable& table = *row.table;
  for (std::uint32_t begin = 0; begin < cols; begin += kLanes) {
    std::array<std::uint8_t, kStepSuffixBytes> plane{};
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      if (begin + lane >= cols) {
        *ranks++ = static_cast<std::uint8_t>(table.padding_rank);
        continue;
      }
      const std::uint16_t value = values[begin + lane];
      const std::uint32_t prefix = prefix_of(value), relative = (prefix - row.base) & (kPrefixes - 1);
      *ranks++ = static_cast<std::uint8_t>(prefix == 0               ? table.zero_rank
                                           : relative < table.window ? relative
                                                                     : kEscapeRank);
      const std::uint32_t bit = lane * kSuffixBits, shifted = suffix_of(value) << bit % 8;
      plane[bit / 8] |= static_cast<std::uint8_t>(shifted);
      if (bit % 8 > 2) plane[bit / 8 + 1] |= static_cast<std::uint8_t>(shifted >> 8);
    }
    std::memcpy(suffixes, plane.data(), plane.size());
    suffixes += kStepSuffixBytes;
  }
}

std::uint16_t* encode_row_scalar(const std::uint8_t* ranks, std::uint32_t steps, const EncodeTable& table,
                                 States& states, std::uint16_t* words) {
  for (std::uint32_t i = steps * kLanes; i-- > 0;) {
    std::uint32_t& x = states[i % kLanes];
    const std::uint32_t symbol = table.symbols[ranks[i]], frequency = symbol & 0xffff;
    if (x >> 20 >= frequency) {
      *--words = static_cast<std::uint16_t>(x);
      x >>= 16;
    }
    x = (x / frequency << kFrequencyBits) + x % frequency + (symbol >> 16);
  }
  return words;
}

std::uint32_t load_suffix(const std::byte* plane, std::uint32_t lane) {
  const std::uint32_t bit = lane * kSuffixBits;
  std::uint32_t bits = std::to_integer<std::uint32_t>(plane[bit / 8]);
  if (bit % 8 > 2) bits |= std::to_integer<std::uint32_t>(plane[bit / 8 + 1]) << 8;
  return bits >> bit % 8 & 63U;
}

std::size_t decode_block(const CodedBlock& block, std::uint16_t* values, std::size_t stride) {
  States x = block.states;
  const std::uint32_t row_steps = steps_per_row(block.cols), steps = block.rows * row_steps;
  const std::uint32_t stored_steps = steps - std::min(steps, kStateSteps);
  std::size_t words_read = 0;
  for (std::uint32_t step = 0; step < steps; ++step) {
    const std::uint32_t row = step / row_steps, begin = step % row_steps * kLanes;
    const DecodeRow& model = block.row_models[row];
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t slot = model.table->slots[x[lane] & (kSlots - 1)];
      x[lane] = ((slot & 0xfff) + 1) * (x[lane] >> kFrequencyBits) + (slot >> 12 & 0xfff);
      if (x[lane] < kStateLow) {
        if (words_read == block.word_count) return kCorrupt;
        std::uint16_t word;
        std::memcpy(&word, block.words + words_read++ * sizeof word, sizeof word);
        x[lane] = x[lane] << 16 | word;
      }
      if (begin + lane >= block.cols) continue;
      const std::uint32_t suffix =
          step < stored_steps ? load_suffix(block.suffixes + std::size_t{step} * kStepSuffixBytes, lane) : 0;
      values[row * stride + begin + lane] = join(prefix_of_rank(model.base, slot >> 24), suffix);
    }
  }
  bool valid = true;
  for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
    valid = valid && x[lane] >> kStateSuffixBits == 1;
    for (std::uint32_t step = stored_steps; step < steps; ++step) {
      const std::uint32_t row = step / row_steps, col = step % row_steps * kLanes + lane;
      if (col >= block.cols) continue;
      values[row * stride + col] |= join(0, x[lane] >> (steps - 1 - step) * kSuffixBits & 63U);
    }
  }
  return valid ? words_read : kCorrupt;
}

void decode_scalar(std::span<DecodeJob> jobs) {
  for (DecodeJob& job : jobs) job.words = decode_block(job.block, job.values, job.stride);
}

constexpr RansKernels kScalar{"scalar", sum_row_scalar, split_row_scalar, encode_row_scalar, decode_scalar};

const RansKernels* of_tile_kernels(const TileKernels* tiles) noexcept {
#if defined(UNWEIGHT_HAVE_AVX2)
  if (std::string_view(tiles->name) == "avx2") return &avx2_rans_kernels();
#endif
  static_cast<void>(tiles);
  return &kScalar;
}

}  // namespace

const RansKernels& scalar_rans_kernels() noexcept { return kScalar; }

const RansKernels& rans_kernels() noexcept { return *of_tile_kernels(&tile_kernels()); }

std::vector<const RansKernels*> available_rans_kernels() {
  std::vector<const RansKernels*> all;
  for (const TileKernels* tiles : available_tile_kernels()) all.push_back(of_tile_kernels(tiles));
  return all;
}

}  // namespace unweight::codec::distribution
