// SPDX-License-Identifier: Apache-2.0
//
// The encoder's functions of the distribution form in AVX2: a step of 32 lanes is four vectors of 8 states.
#include <algorithm>
#include <bit>
#include <codec/rans_avx2.hpp>
#include <cstring>

namespace unweight::codec::distribution {
namespace {

using namespace format::distribution;

/// gather[mask]: the lanes of `mask` at the end, in order.
constexpr auto kGather = [] {
  std::array<std::array<std::uint8_t, 8>, 256> table{};
  for (std::uint32_t mask = 0; mask < 256; ++mask) {
    std::uint32_t at = 8;
    for (std::uint32_t lane = 8; lane-- > 0;) {
      if ((mask >> lane & 1) != 0) table[mask][--at] = static_cast<std::uint8_t>(lane);
    }
  }
  return table;
}();

/// Of `vectors` * 16 values; at most 2^16 vectors, so that no 32-bit sum overflows.
RowSums sum_vectors(const std::uint16_t* values, std::size_t vectors) {
  constexpr std::size_t kMostAtOnce = 32;  // 32 * 1023 is the most that a signed 16-bit sum can hold
  const __m256i prefix_mask = _mm256_set1_epi16(kPrefixes - 1), zero = _mm256_setzero_si256();
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums = zero, zeros = zero;
  for (std::size_t i = 0; i < vectors;) {
    __m256i some = zero, some_zeros = zero;
    for (const std::size_t end = i + std::min(kMostAtOnce, vectors - i); i < end; ++i) {
      const __m256i prefixes = _mm256_and_si256(_mm256_srli_epi16(load256(values + 16 * i), 5), prefix_mask);
      some = _mm256_add_epi16(some, prefixes);
      some_zeros = _mm256_sub_epi16(some_zeros, _mm256_cmpeq_epi16(prefixes, zero));
    }
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(some, ones));
    zeros = _mm256_add_epi32(zeros, _mm256_madd_epi16(some_zeros, ones));
  }
  alignas(32) std::array<std::uint32_t, 8> each;
  RowSums total{0, 16 * vectors};
  store256(each.data(), sums);
  for (const std::uint32_t sum : each) total.prefixes += sum;
  store256(each.data(), zeros);
  for (const std::uint32_t found : each) total.count -= found;
  return total;
}

RowSums sum_row_avx2(const std::uint16_t* values, std::size_t count) {
  constexpr std::size_t kMostVectors = std::size_t{1} << 16;
  RowSums total;
  const std::size_t vectors = count / 16;
  for (std::size_t i = 0; i < vectors; i += kMostVectors) {
    const RowSums some = sum_vectors(values + 16 * i, std::min(kMostVectors, vectors - i));
    total.prefixes += some.prefixes;
    total.count += some.count;
  }
  for (std::size_t i = 16 * vectors; i < count; ++i) {
    total.prefixes += prefix_of(values[i]);
    total.count += prefix_of(values[i]) != 0;
  }
  return total;
}

struct SplitConstants {
  __m256i base, window, zero_rank;
};

/// Ranks of 16 values, in 16-bit elements.
__m256i ranks_of(__m256i values, const SplitConstants& c) {
  const __m256i prefix_mask = _mm256_set1_epi16(kPrefixes - 1), escape = _mm256_set1_epi16(kEscapeRank);
  const __m256i prefixes = _mm256_and_si256(_mm256_srli_epi16(values, 5), prefix_mask);
  const __m256i relative = _mm256_and_si256(_mm256_sub_epi16(prefixes, c.base), prefix_mask);
  const __m256i ranks = _mm256_blendv_epi8(escape, relative, _mm256_cmpgt_epi16(c.window, relative));
  return _mm256_blendv_epi8(ranks, c.zero_rank, _mm256_cmpeq_epi16(prefixes, _mm256_setzero_si256()));
}

__m256i suffixes_of(__m256i values) {
  return _mm256_or_si256(_mm256_and_si256(values, _mm256_set1_epi16(31)),
                         _mm256_and_si256(_mm256_srli_epi16(values, 10), _mm256_set1_epi16(32)));
}

/// Writes 32 6-bit numbers as 24 bytes, and 4 bytes more.
void store_suffixes(std::byte* out, __m256i numbers) {
  const __m256i pairs = _mm256_maddubs_epi16(numbers, _mm256_set1_epi16(1 | 64 << 8));
  const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(1 | 4096 << 16));
  const __m256i compact =
      _mm256_shuffle_epi8(fours, _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0, 1, 2, 4, 5,
                                                  6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  store128(out, _mm256_castsi256_si128(compact));
  store128(out + 12, _mm256_extracti128_si256(compact, 1));
}

void split_row_avx2(const std::uint16_t* values, std::uint32_t cols, const EncodeRow& row, std::uint8_t* ranks,
                    std::byte* suffixes) {
  const EncodeTable& table = *row.table;
  const SplitConstants c{_mm256_set1_epi16(static_cast<short>(row.base)),
                         _mm256_set1_epi16(static_cast<short>(table.window)),
                         _mm256_set1_epi16(static_cast<short>(table.zero_rank))};
  const auto split = [&](const std::uint16_t* from) {
    const __m256i a = load256(from), b = load256(from + 16);
    const __m256i packed = _mm256_packus_epi16(ranks_of(a, c), ranks_of(b, c));
    store256(ranks, _mm256_permute4x64_epi64(packed, 0xd8));
    store_suffixes(suffixes, _mm256_permute4x64_epi64(_mm256_packus_epi16(suffixes_of(a), suffixes_of(b)), 0xd8));
    ranks += kLanes;
    suffixes += kStepSuffixBytes;
  };
  const std::uint32_t whole = cols / kLanes * kLanes;
  for (std::uint32_t col = 0; col < whole; col += kLanes) split(values + col);
  if (whole == cols) return;
  alignas(32) std::array<std::uint16_t, kLanes> last{};
  std::memcpy(last.data(), values + whole, (cols - whole) * sizeof(std::uint16_t));
  split(last.data());
  std::fill(ranks - kLanes + (cols - whole), ranks, static_cast<std::uint8_t>(table.padding_rank));
}

/// One step of 8 lanes. Returns where the words begin now.
[[gnu::always_inline]] inline std::uint16_t* encode_vector(__m256i& x, const std::uint32_t* symbols,
                                                           std::uint16_t* words) {
  const __m256i symbol = load256(symbols);
  const __m256i frequency = _mm256_and_si256(symbol, _mm256_set1_epi32(0xffff));

  const __m256i keep = _mm256_cmpgt_epi32(frequency, _mm256_srli_epi32(x, 20));
  const auto emit = static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(keep))) ^ 0xffU;
  const __m256i halves =
      _mm256_permutevar8x32_epi32(_mm256_blend_epi16(x, _mm256_setzero_si256(), 0xaa), lane_numbers(kGather[emit]));
  store128(words - 8, _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
  const __m256i y = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, keep);

  // The quotient y / frequency, below 2^20, from floats: y with one rounding, times a reciprocal that is taken 2^-21
  // too small. The three roundings, in whichever mode, are together smaller than that, and 7 * 2^-23 of the quotient
  // less than one: the estimate is the quotient or one less, which the remainder tells. So the result is that of
  // integers.
  const __m256 reciprocal = _mm256_div_ps(_mm256_set1_ps(1 - 0x1p-21F), _mm256_cvtepi32_ps(frequency));
  const __m256i low_bits = _mm256_blend_epi16(y, _mm256_set1_epi32(0x4b000000), 0xaa);  // 2^23 + low half
  const __m256i high_bits = _mm256_or_si256(_mm256_srli_epi32(y, 16), _mm256_set1_epi32(0x53000000));  // 2^39 + high
  const __m256 high = _mm256_sub_ps(_mm256_castsi256_ps(high_bits), _mm256_set1_ps(0x1p39F + 0x1p23F));
  const __m256 number = _mm256_add_ps(high, _mm256_castsi256_ps(low_bits));
  const __m256i quotient = _mm256_cvttps_epi32(_mm256_mul_ps(number, reciprocal));
  // The remainder is below 2^13: 16 bits of the product tell it.
  const __m256i rest =
      _mm256_blend_epi16(_mm256_sub_epi16(y, _mm256_mullo_epi16(quotient, frequency)), _mm256_setzero_si256(), 0xaa);
  const __m256i exact = _mm256_cmpgt_epi32(frequency, rest);
  // One more quotient is 2^12 more and one frequency less.
  const __m256i one_more = _mm256_andnot_si256(exact, _mm256_sub_epi32(_mm256_set1_epi32(kSlots), frequency));
  x = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(rest, _mm256_srli_epi32(symbol, 16)),
                                        _mm256_slli_epi32(quotient, kFrequencyBits)),
                       one_more);
  return words - std::popcount(emit);
}

std::uint16_t* encode_row_avx2(const std::uint8_t* ranks, std::uint32_t steps, const EncodeTable& table, States& states,
                               std::uint16_t* words) {
  // A gather waits until the addresses of all earlier stores are known, and those of words depend on the states: so the
  // symbols are looked up before any of them is encoded. That is 2.5 times as fast as looking up each when its turn has
  // come.
  alignas(32) std::array<std::uint32_t, kMaxBlockCols> symbols;
  const int* frequencies = reinterpret_cast<const int*>(table.symbols.data());
  for (std::uint32_t i = 0; i < steps * kLanes; i += 8) {
    const __m256i rank = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(ranks + i)));
    store256(symbols.data() + i, _mm256_i32gather_epi32(frequencies, rank, 4));
  }
  __m256i x0 = load256(states.data()), x1 = load256(states.data() + 8);
  __m256i x2 = load256(states.data() + 16), x3 = load256(states.data() + 24);
  for (std::uint32_t step = steps; step-- > 0;) {
    const std::uint32_t* at = symbols.data() + std::size_t{step} * kLanes;
    words = encode_vector(x3, at + 24, words);
    words = encode_vector(x2, at + 16, words);
    words = encode_vector(x1, at + 8, words);
    words = encode_vector(x0, at, words);
  }
  store256(states.data(), x0);
  store256(states.data() + 8, x1);
  store256(states.data() + 16, x2);
  store256(states.data() + 24, x3);
  return words;
}

constexpr RansKernels kAvx2{"avx2", sum_row_avx2, split_row_avx2, encode_row_avx2, decode_avx2};

}  // namespace

const RansKernels& avx2_rans_kernels() noexcept { return kAvx2; }

}  // namespace unweight::codec::distribution
