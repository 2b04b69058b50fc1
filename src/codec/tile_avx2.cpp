// SPDX-License-Identifier: Apache-2.0
//
// The tile functions in AVX2. Terms: a *unit* is the pair of values (or of nibble codes) whose columns differ in bit 0
// only; a *chunk* is a lane's 16 bytes in one half of the sign+mantissa plane, 8 units numbered (v, g, h): k-step of 16
// columns, row half, column half. An *octet* is the four lanes t = 0..3 that hold rows o and o + 8. In the tile, units
// lie as [t][v][g][h]; in a row they lie as [v][h][t]: encode and decode are that permutation and a table lookup.
#include <algorithm>
#include <bit>
#include <codec/checksum.hpp>
#include <codec/tile_kernels.hpp>
#include <cstring>
#include <format/bf16.hpp>
#include <immintrin.h>
#include <optional>

namespace unweight::codec {
namespace {

using namespace format;

constexpr std::uint32_t kOctets = 8;
constexpr std::uint32_t kHalfBytes = kSignMantissaBytes / 2;  // one half of the plane covers 32 columns
constexpr std::uint32_t kOctetBytes = 64;                     // four chunks

__m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
__m256i load256(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
void store128(void* at, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(at), v); }
void store256(void* at, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(at), v); }

/// `low` and `high` as the two 128-bit lanes of one register.
__m256i load_lanes(const void* low, const void* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(low)), load128(high), 1);
}

std::uint64_t xxh3_avx2(const void* bytes, std::size_t size) { return XXH3_64bits(bytes, size); }

// ---- palettes -------------------------------------------------------------------------------------------------------

constexpr std::uint32_t kWindow = 16;  // exponents that are counted: weights of one row rarely have others

/// tie[m][e]: how exponent e of the window ranks among those of its count when m is the most frequent one, highest
/// first: nearer to m, then lower.
constexpr auto kTieRank = [] {
  std::array<std::array<std::uint8_t, kWindow>, kWindow> table{};
  for (std::uint32_t m = 0; m < kWindow; ++m) {
    std::uint8_t rank = kWindow - 1;
    table[m][m] = rank;
    for (std::uint32_t distance = 1; distance < kWindow; ++distance) {
      if (distance <= m) table[m][m - distance] = --rank;
      if (m + distance < kWindow) table[m][m + distance] = --rank;
    }
  }
  return table;
}();

/// A counter in each half of a byte: entry e of table j is 1 for e = 2 j, 16 for e = 2 j + 1.
constexpr std::uint32_t kTables = kWindow / 2;
constexpr std::size_t kStepValues = 32, kBlockValues = 15 * kStepValues;  // what 4-bit counters can count
constexpr std::size_t kMostCounted = 136 * kBlockValues;                  // what 16-bit counters can count
static_assert(kMostCounted <= UINT16_MAX);

alignas(32) constexpr auto kOneHot = [] {
  std::array<std::array<std::uint8_t, 32>, kTables> tables{};
  for (std::uint32_t j = 0; j < kTables; ++j) {
    for (std::uint32_t half = 0; half < 32; half += 16) {
      tables[j][half + 2 * j] = 1;
      tables[j][half + 2 * j + 1] = 16;
    }
  }
  return tables;
}();

/// Sums the two 4-bit counters of all bytes: 4 partial sums of the even exponent in bits 0..15, of the odd one in bits
/// 16..31 of the 64-bit lanes.
__m256i sum_nibbles(__m256i counters) {
  const __m256i nibble = _mm256_set1_epi8(0x0f), zero = _mm256_setzero_si256();
  const __m256i even = _mm256_sad_epu8(_mm256_and_si256(counters, nibble), zero);
  const __m256i odd = _mm256_sad_epu8(_mm256_and_si256(_mm256_srli_epi16(counters, 4), nibble), zero);
  return _mm256_or_si256(even, _mm256_slli_epi64(odd, 16));
}

/// Adds the even 64-bit lanes to the odd ones: those of `a` in the even lanes of the result, of `b` in the odd ones.
__m256i add_pairs(__m256i a, __m256i b) {
  return _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/// Relative exponents of 32 values as indices of a byte shuffle: 0x70 + e inside the window, top bit set outside.
__m256i window_indices(const std::uint16_t* values, __m256i lowest) {
  const __m256i byte = _mm256_set1_epi16(0xff);
  const __m256i exponents = _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(load256(values), 7), byte),
                                                _mm256_and_si256(_mm256_srli_epi16(load256(values + 16), 7), byte));
  return _mm256_adds_epu8(_mm256_sub_epi8(exponents, lowest), _mm256_set1_epi8(0x80 - kWindow));
}

/// How many of the `count` values have exponent low + e, for e = 0..15; count is at most kMostCounted.
__m256i count_window(const std::uint16_t* values, std::size_t count, std::uint32_t low) {
  const __m256i lowest = _mm256_set1_epi8(static_cast<char>(low));
  const std::size_t whole = count / kStepValues * kStepValues;
  alignas(32) std::array<std::uint16_t, kStepValues> rest;
  if (whole != count) {
    rest.fill(static_cast<std::uint16_t>(((low + kWindow) & 0xff) << 7));  // outside
    std::memcpy(rest.data(), values + whole, (count - whole) * sizeof(std::uint16_t));
  }
  __m256i counts = _mm256_setzero_si256();
  for (std::size_t begin = 0; begin < count; begin += kBlockValues) {
    __m256i counters[kTables];
    for (auto& counter : counters) counter = _mm256_setzero_si256();
    const auto add = [&](__m256i indices) {
      for (std::uint32_t j = 0; j < kTables; ++j) {
        counters[j] = _mm256_add_epi8(counters[j], _mm256_shuffle_epi8(load256(kOneHot[j].data()), indices));
      }
    };
    const std::size_t end = std::min(begin + kBlockValues, whole);
    for (std::size_t i = begin; i < end; i += kStepValues) add(window_indices(values + i, lowest));
    if (end == whole && whole != count && count - begin <= kBlockValues) add(window_indices(rest.data(), lowest));
    __m256i sums[kTables / 2];
    for (std::uint32_t j = 0; j < kTables / 2; ++j) {
      sums[j] = _mm256_or_si256(sum_nibbles(counters[2 * j]), _mm256_slli_epi64(sum_nibbles(counters[2 * j + 1]), 32));
    }
    const __m256i low_half = add_pairs(sums[0], sums[1]), high_half = add_pairs(sums[2], sums[3]);
    counts = _mm256_add_epi16(counts, _mm256_add_epi16(_mm256_permute2x128_si256(low_half, high_half, 0x20),
                                                       _mm256_permute2x128_si256(low_half, high_half, 0x31)));
  }
  return counts;
}

std::uint32_t sum_of(__m256i counts) {
  alignas(32) std::array<std::uint16_t, kWindow> each;
  store256(each.data(), counts);
  std::uint32_t sum = 0;
  for (const std::uint16_t count : each) sum += count;
  return sum;
}

/// Index of the greatest of 16 numbers, the first such.
std::uint32_t index_of_greatest(__m256i numbers) {
  const __m256i inverted = _mm256_xor_si256(numbers, _mm256_set1_epi8(-1));
  const auto low = static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm256_castsi256_si128(inverted))));
  const auto high =
      static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm256_extracti128_si256(inverted, 1))));
  return (high & 0xffff) < (low & 0xffff) ? 8 + (high >> 16) : low >> 16;
}

std::uint16_t least(__m256i numbers) {
  const __m128i least8 = _mm_min_epu16(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
  return static_cast<std::uint16_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(least8)));
}

/// Where the window of a row begins: two exponents above the greatest of its first 32 values, thirteen below.
std::uint32_t window_of(const std::uint16_t* values) {
  const __m256i magnitude = _mm256_set1_epi16(0x7fff);
  const __m256i greatest =
      _mm256_max_epu16(_mm256_and_si256(load256(values), magnitude), _mm256_and_si256(load256(values + 16), magnitude));
  const __m256i inverted = _mm256_xor_si256(greatest, _mm256_set1_epi8(-1));
  const std::uint32_t highest = exponent_of(static_cast<std::uint16_t>(~least(inverted)));
  return std::min(highest < 13 ? 0 : highest - 13, 256 - kWindow);
}

/// The palette of a row that has `counts` of the exponents low..low + 15, and `outside` others. Nothing when one of the
/// others could be among the best, which is rare.
std::optional<Palette> palette_in_window(__m256i counts, std::uint32_t low, std::size_t outside) {
  // One comparable number an exponent, as in best_palette(). Its rank is how many are greater.
  const __m128i ties = load128(kTieRank[index_of_greatest(counts)].data());
  const auto keys_of = [](__m128i counts8, __m128i ties8) {
    return _mm256_or_si256(_mm256_slli_epi32(_mm256_cvtepu16_epi32(counts8), 4), _mm256_cvtepu8_epi32(ties8));
  };
  const __m256i keys0 = keys_of(_mm256_castsi256_si128(counts), ties);
  const __m256i keys1 = keys_of(_mm256_extracti128_si256(counts, 1), _mm_srli_si128(ties, 8));
  alignas(32) std::array<std::int32_t, kWindow> keys;
  store256(keys.data(), keys0);
  store256(keys.data() + 8, keys1);
  __m256i rank0 = _mm256_setzero_si256(), rank1 = rank0;  // negative
  for (const std::int32_t key : keys) {
    const __m256i other = _mm256_set1_epi32(key);
    rank0 = _mm256_add_epi32(rank0, _mm256_cmpgt_epi32(other, keys0));
    rank1 = _mm256_add_epi32(rank1, _mm256_cmpgt_epi32(other, keys1));
  }
  const __m256i end = _mm256_set1_epi32(-static_cast<int>(kPaletteSize));
  const __m256i chosen = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(_mm256_cmpgt_epi32(rank0, end), _mm256_cmpgt_epi32(rank1, end)), 0xD8);
  const __m256i not_chosen = _mm256_xor_si256(chosen, _mm256_set1_epi8(-1));
  if (outside >= least(_mm256_or_si256(counts, not_chosen))) return std::nullopt;

  // The numbers of the 8 chosen, ascending, one a byte: both bytes of a chosen count are set in `bits`.
  const auto bits = static_cast<std::uint32_t>(_mm256_movemask_epi8(chosen));
  const std::uint64_t nibbles = _pdep_u64(_pext_u32(bits, 0x55555555U), 0x1111111111111111U) * 15;
  const std::uint64_t numbers = _pdep_u64(_pext_u64(0xfedcba9876543210U, nibbles), 0x0f0f0f0f0f0f0f0fU);
  const std::uint64_t exponents = numbers + low * 0x0101010101010101U;
  Palette palette;
  std::memcpy(palette.data(), &exponents, sizeof exponents);
  return palette;
}

/// Clearing and scanning 256 counters, and sorting what they hold, takes longer than counting the 384 values of a small
/// row. So only a window of 16 exponents is counted, which decides nearly always; else the general way does. For such
/// rows this takes 0.2 ns a value instead of 0.5, of the 1 ns that all of encoding takes.
Palette choose_palette_avx2(const std::uint16_t* values, std::size_t count) {
  if (count < kStepValues) return best_palette(values, count);
  const std::uint32_t low = window_of(values);
  if (count <= kMostCounted) {
    const __m256i counts = count_window(values, count, low);
    const auto palette = palette_in_window(counts, low, count - sum_of(counts));
    return palette ? *palette : best_palette(values, count);
  }
  std::array<std::uint32_t, 256> histogram{};
  std::size_t inside = 0;
  for (std::size_t begin = 0; begin < count; begin += kMostCounted) {
    alignas(32) std::array<std::uint16_t, kWindow> counts;
    store256(counts.data(), count_window(values + begin, std::min(kMostCounted, count - begin), low));
    for (std::uint32_t e = 0; e < kWindow; ++e) {
      histogram[low + e] += counts[e];
      inside += counts[e];
    }
  }
  RowCounts row;
  row.assign(histogram);
  const Palette palette = best_palette(row);
  std::uint32_t eighth = UINT32_MAX;
  for (const std::uint8_t e : palette) eighth = std::min(eighth, histogram[e]);
  return count - inside < eighth ? palette : best_palette(values, count);
}

// ---- encode ---------------------------------------------------------------------------------------------------------

/// 32 columns of a row, split into byte planes. Bytes lie as [v][t][b][h]: the high 128-bit lane is v = 1.
struct Split {
  __m256i sign_mantissa, exponent;
};

Split split_row(const std::uint16_t* row) {
  const __m256i h0 = load_lanes(row, row + 16), h1 = load_lanes(row + 8, row + 24);
  const __m256i low_byte = _mm256_set1_epi16(0xff), top = _mm256_set1_epi8(static_cast<char>(0x80));
  const __m256i low = _mm256_or_si256(_mm256_and_si256(h0, low_byte), _mm256_slli_epi16(h1, 8));
  const __m256i high = _mm256_or_si256(_mm256_srli_epi16(h0, 8), _mm256_andnot_si256(low_byte, h1));
  const __m256i sign_mantissa = _mm256_xor_si256(low, _mm256_and_si256(_mm256_xor_si256(low, high), top));
  const __m256i lowest_bit = _mm256_and_si256(_mm256_srli_epi16(low, 7), _mm256_set1_epi8(1));
  return {sign_mantissa, _mm256_or_si256(_mm256_add_epi8(high, high), lowest_bit)};
}

/// Writes the four chunks of an octet in one half of the plane; a byte of `row` and `row8` lies at [v][t][b][h].
void store_chunks(__m256i row, __m256i row8, std::byte* at) {
  const __m256i swap_bh =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
  const __m256i a = _mm256_shuffle_epi8(row, swap_bh), b = _mm256_shuffle_epi8(row8, swap_bh);
  const __m256i t01 = _mm256_unpacklo_epi32(a, b), t23 = _mm256_unpackhi_epi32(a, b);  // [v][t][g][h][b]
  store256(at, _mm256_permute4x64_epi64(t01, 0xD8));
  store256(at + 32, _mm256_permute4x64_epi64(t23, 0xD8));
}

/// Codes of one row's exponents: 8 for exceptions. In a window of consecutive exponents, as nearly all palettes are,
/// codes are differences.
struct Coder {
  bool window;
  __m256i lowest;
  const Palette* palette;

  explicit Coder(const Palette& p)
      : window(p[kPaletteSize - 1] - p[0] == kPaletteSize - 1),
        lowest(_mm256_set1_epi8(static_cast<char>(p[0]))),
        palette(&p) {}

  [[nodiscard]] __m256i operator()(__m256i exponent) const {
    const __m256i exception = _mm256_set1_epi8(kPaletteSize);
    if (window) return _mm256_min_epu8(_mm256_sub_epi8(exponent, lowest), exception);
    __m256i code = exception;
    for (std::uint32_t j = 0; j < kPaletteSize; ++j) {
      const __m256i equal = _mm256_cmpeq_epi8(exponent, _mm256_set1_epi8(static_cast<char>((*palette)[j])));
      code = _mm256_xor_si256(code, _mm256_and_si256(equal, _mm256_set1_epi8(static_cast<char>(j ^ kPaletteSize))));
    }
    return code;
  }
};

/// Codes of both rows at [v][t][b][h] to nibbles [t][v][g][h][b]: two words a lane.
__m256i pack_codes(__m256i row, __m256i row8) {
  const __m256i join_b = _mm256_set1_epi32(16 << 16 | 1);
  const __m256i g0 = _mm256_madd_epi16(row, join_b), g1 = _mm256_slli_epi32(_mm256_madd_epi16(row8, join_b), 16);
  return _mm256_permutevar8x32_epi32(_mm256_or_si256(g0, g1), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/// The top bits of the nibbles of four lanes, in the order of positions.
std::uint64_t exception_bits(__m256i nibbles) {
  const __m256i t02_13 = _mm256_permute4x64_epi64(nibbles, 0xD8);
  const __m256i even = _mm256_slli_epi16(t02_13, 4);
  const auto t01 = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_unpacklo_epi8(even, t02_13)));
  const auto t23 = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_unpackhi_epi8(even, t02_13)));
  return t01 | std::uint64_t{t23} << 32;
}

/// Lists the exceptions that `mask` marks, bit p & 63 of word p >> 6. A word rarely has more than three: those are
/// written without asking, which spares a mispredicted branch a word.
std::uint32_t list_exceptions(const std::array<std::uint64_t, kTileValues / 64>& mask, const std::uint16_t* values,
                              std::size_t stride, std::uint32_t* exceptions) {
  std::uint32_t count = 0;
  for (std::uint32_t word = 0; word < mask.size(); ++word) {
    std::uint64_t bits = mask[word];
    const auto found = static_cast<std::uint32_t>(std::popcount(bits));
    std::uint32_t* out = exceptions + count;
    for (std::uint32_t i = 0; i < 3 || i < found; ++i) {
      out[i] = word * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
      bits &= bits - 1;
    }
    count += found;
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t p = exceptions[i];
    exceptions[i] = p | std::uint32_t{exponent_of(values[position_row(p) * stride + position_col(p)])} << 16;
  }
  return count;
}

std::uint32_t encode_avx2(const std::uint16_t* values, std::size_t stride, const StripPalettes& palettes,
                          std::byte* tile, std::uint32_t* exceptions) {
  std::array<std::uint64_t, kTileValues / 64> mask;
  for (std::uint32_t octet = 0; octet < kOctets; ++octet) {
    const std::uint16_t* row = values + octet * stride;
    const std::uint16_t* row8 = row + 8 * stride;
    const Coder coder(palettes.plain[octet]), coder8(palettes.plain[octet + 8]);
    __m256i half_codes[2];
    for (std::uint32_t half = 0; half < 2; ++half) {
      const Split a = split_row(row + 32 * half), b = split_row(row8 + 32 * half);
      store_chunks(a.sign_mantissa, b.sign_mantissa, tile + half * kHalfBytes + octet * kOctetBytes);
      const __m256i codes = pack_codes(coder(a.exponent), coder8(b.exponent));
      mask[half * kOctets + octet] = exception_bits(codes);
      half_codes[half] = _mm256_and_si256(codes, _mm256_set1_epi32(0x77777777));
    }
    // Words 0 and 1 of each lane are half 0's codes, words 2 and 3 half 1's; word 3 goes into the spare bits.
    const __m256i word3 = _mm256_shuffle_epi32(half_codes[1], 0xF5);
    const __m256i spare = _mm256_sllv_epi32(_mm256_and_si256(word3, _mm256_set1_epi64x(0x2222222211111111)),
                                            _mm256_set1_epi64x(std::int64_t{2} << 32 | 3));
    store256(tile + kCodes01Offset + octet * 32, _mm256_or_si256(half_codes[0], spare));
    const __m256i word2 =
        _mm256_or_si256(half_codes[1], _mm256_slli_epi32(_mm256_and_si256(word3, _mm256_set1_epi32(0x44444444)), 1));
    const __m256i even = _mm256_permutevar8x32_epi32(word2, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    store128(tile + kCodes2Offset + octet * 16, _mm256_castsi256_si128(even));
  }
  return list_exceptions(mask, values, stride, exceptions);
}

// ---- decode ---------------------------------------------------------------------------------------------------------

/// Bytes of nibble pairs, [t][v][g][h] for four lanes, to two registers (v = 0, 1), each [g][h][t].
void codes_by_row(__m256i codes, __m128i (&step)[2]) {
  // Within each pair of lanes, units first: [v][g][h][t & 1].
  const __m256i interleave =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  const __m256i pairs = _mm256_shuffle_epi8(codes, interleave);
  const __m128i t01 = _mm256_castsi256_si128(pairs), t23 = _mm256_extracti128_si256(pairs, 1);
  step[0] = _mm_unpacklo_epi16(t01, t23);
  step[1] = _mm_unpackhi_epi16(t01, t23);
}

/// 16 values of one row and k-step in each 128-bit lane: low lane to `low`, high lane to `high`.
void join_and_store(__m256i sign_mantissa, __m256i rotated, std::uint16_t* low, std::uint16_t* high) {
  const __m256i top = _mm256_set1_epi8(static_cast<char>(0x80));
  const __m256i differ = _mm256_and_si256(_mm256_xor_si256(sign_mantissa, rotated), top);
  const __m256i low_bytes = _mm256_xor_si256(sign_mantissa, differ);  // top bit from the exponent
  const __m256i high_bytes = _mm256_xor_si256(rotated, differ);       // top bit from the sign
  const __m256i first = _mm256_unpacklo_epi8(low_bytes, high_bytes);
  const __m256i second = _mm256_unpackhi_epi8(low_bytes, high_bytes);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(low), _mm256_permute2x128_si256(first, second, 0x20));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(high), _mm256_permute2x128_si256(first, second, 0x31));
}

void decode_avx2(const std::byte* tile, const StripPalettes& palettes, std::uint16_t* values, std::size_t stride) {
  const __m256i nibble = _mm256_set1_epi8(0x0f);
  for (std::uint32_t octet = 0; octet < kOctets; ++octet) {
    // Sign+mantissa chunks: half 0 in the low 128-bit lane, half 1 in the high one; so k-steps (0, 2) and (1, 3).
    const std::byte* plane = tile + octet * kOctetBytes;
    const __m256i x0 = load_lanes(plane, plane + kHalfBytes);
    const __m256i x1 = load_lanes(plane + 16, plane + kHalfBytes + 16);
    const __m256i x2 = load_lanes(plane + 32, plane + kHalfBytes + 32);
    const __m256i x3 = load_lanes(plane + 48, plane + kHalfBytes + 48);
    const __m256i lo01 = _mm256_unpacklo_epi16(x0, x1), lo23 = _mm256_unpacklo_epi16(x2, x3);
    const __m256i hi01 = _mm256_unpackhi_epi16(x0, x1), hi23 = _mm256_unpackhi_epi16(x2, x3);
    const __m256i sm[2][2] = {{_mm256_unpacklo_epi32(lo01, lo23), _mm256_unpackhi_epi32(lo01, lo23)},
                              {_mm256_unpacklo_epi32(hi01, hi23), _mm256_unpackhi_epi32(hi01, hi23)}};  // [v][g]

    const __m256i c01 = load256(tile + kCodes01Offset + octet * 32);                       // [t][word 0, word 1]
    const __m256i c2 = _mm256_cvtepu32_epi64(load128(tile + kCodes2Offset + octet * 16));  // [t][word 2, 0]
    const __m256i seven = _mm256_set1_epi32(0x77777777);
    const __m256i spare = _mm256_and_si256(
        _mm256_srlv_epi32(c01, _mm256_set1_epi64x(std::int64_t{2} << 32 | 3)),
        _mm256_set1_epi64x(0x2222222211111111));  // bits 0 and 1 of word 3, in the words they came from
    const __m256i spare2 = _mm256_and_si256(_mm256_srli_epi32(c2, 1), _mm256_set1_epi32(0x44444444));
    const __m256i word3 = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi64(spare, 32), spare),
                                          _mm256_slli_epi64(spare2, 32));  // in the high word of each lane
    const __m256i half0 = _mm256_and_si256(c01, seven);
    const __m256i half1 = _mm256_blend_epi32(_mm256_and_si256(c2, seven), word3, 0xAA);
    __m128i step0[2], step1[2];
    codes_by_row(half0, step0);
    codes_by_row(half1, step1);
    std::uint64_t palette[2];
    std::memcpy(&palette[0], palettes.rotated[octet].data(), 8);
    std::memcpy(&palette[1], palettes.rotated[octet + 8].data(), 8);
    const __m256i table[2] = {_mm256_set1_epi64x(static_cast<long long>(palette[0])),
                              _mm256_set1_epi64x(static_cast<long long>(palette[1]))};
    for (std::uint32_t v = 0; v < 2; ++v) {
      const __m256i packed = _mm256_setr_m128i(step0[v], step1[v]);
      const __m256i even = _mm256_and_si256(packed, nibble);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(packed, 4), nibble);
      const __m256i codes[2] = {_mm256_unpacklo_epi8(even, odd), _mm256_unpackhi_epi8(even, odd)};  // [g]
      for (std::uint32_t g = 0; g < 2; ++g) {
        std::uint16_t* row = values + (octet + 8 * g) * stride + 16 * v;
        join_and_store(sm[v][g], _mm256_shuffle_epi8(table[g], codes[g]), row, row + 32);
      }
    }
  }
}

constexpr TileKernels kAvx2{"avx2", xxh3_avx2, choose_palette_avx2, encode_avx2, decode_avx2};

}  // namespace

const TileKernels& avx2_tile_kernels() noexcept { return kAvx2; }

}  // namespace unweight::codec
