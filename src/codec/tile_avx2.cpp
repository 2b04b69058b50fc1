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

namespace unweight::codec {
namespace {

using namespace format;

constexpr std::uint32_t kOctets = 8;
constexpr std::uint32_t kHalfBytes = kSignMantissaBytes / 2;  // one half of the plane covers 32 columns
constexpr std::uint32_t kOctetBytes = 64;                     // four chunks

__m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
__m256i load256(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
void store128(void* at, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(at), v); }

/// `low` and `high` as the two 128-bit lanes of one register.
__m256i load_lanes(const void* low, const void* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(low)), load128(high), 1);
}

std::uint64_t xxh3_avx2(const void* bytes, std::size_t size) { return XXH3_64bits(bytes, size); }

// ---- counting -------------------------------------------------------------------------------------------------------

constexpr std::uint32_t kWindow = 16;                        // exponents counted by comparison; the others one by one
constexpr std::size_t kBlockValues = 255 * std::size_t{32};  // what byte counters can count

/// Counts bytes equal to First..First + 7 in `bytes`, a multiple of 32 of them and at most kBlockValues.
template <int First>
void count_eight(const std::uint8_t* bytes, std::size_t size, std::uint32_t* counts) {
  __m256i sums[8];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (std::size_t i = 0; i < size; i += 32) {
    const __m256i x = load256(bytes + i);
    for (int j = 0; j < 8; ++j) {
      sums[j] = _mm256_sub_epi8(sums[j], _mm256_cmpeq_epi8(x, _mm256_set1_epi8(static_cast<char>(First + j))));
    }
  }
  for (int j = 0; j < 8; ++j) {
    const __m256i quarters = _mm256_sad_epu8(sums[j], _mm256_setzero_si256());
    const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256(quarters, 1));
    counts[First + j] += static_cast<std::uint32_t>(_mm_cvtsi128_si64(halves) + _mm_extract_epi64(halves, 1));
  }
}

/// A table of counters takes more than a cycle a value. Weights of one row fall into a window of 16 exponents but for
/// one in a thousand or fewer, so the window is counted by comparison: 2.5 times as fast as four tables in turn.
void count_exponents_avx2(const std::uint16_t* values, std::size_t count, RowCounts& row) {
  std::array<std::uint32_t, 256> histogram{};
  if (count < 64) {
    for (std::size_t i = 0; i < count; ++i) ++histogram[exponent_of(values[i])];
    row.assign(histogram);
    return;
  }
  std::uint32_t highest = 0;
  for (std::size_t i = 0; i < 32; ++i) highest = std::max<std::uint32_t>(highest, exponent_of(values[i]));
  const std::uint32_t low = std::min(highest < 13 ? 0 : highest - 13, 256 - kWindow);  // two above, thirteen below
  const __m256i low_bytes = _mm256_set1_epi8(static_cast<char>(low));
  const __m256i last = _mm256_set1_epi8(kWindow - 1), byte = _mm256_set1_epi16(0xff);
  alignas(32) std::array<std::uint8_t, kBlockValues> relative;
  std::array<std::uint32_t, kWindow> window{};
  for (std::size_t begin = 0; begin < count; begin += kBlockValues) {
    const std::size_t block = std::min(kBlockValues, count - begin), whole = block / 32 * 32;
    for (std::size_t i = 0; i < whole; i += 32) {
      const __m256i a = load256(values + begin + i), b = load256(values + begin + i + 16);
      const __m256i exponents = _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(a, 7), byte),
                                                    _mm256_and_si256(_mm256_srli_epi16(b, 7), byte));
      const __m256i x = _mm256_sub_epi8(exponents, low_bytes);
      _mm256_store_si256(reinterpret_cast<__m256i*>(relative.data() + i), x);
      const __m256i inside = _mm256_cmpeq_epi8(_mm256_min_epu8(x, last), x);
      for (std::uint32_t outside = ~static_cast<std::uint32_t>(_mm256_movemask_epi8(inside)); outside != 0;
           outside &= outside - 1) {
        ++histogram[static_cast<std::uint8_t>(relative[i + static_cast<unsigned>(std::countr_zero(outside))] + low)];
      }
    }
    count_eight<0>(relative.data(), whole, window.data());
    count_eight<8>(relative.data(), whole, window.data());
    for (std::size_t i = whole; i < block; ++i) ++histogram[exponent_of(values[begin + i])];
  }
  for (std::uint32_t j = 0; j < kWindow; ++j) histogram[low + j] += window[j];
  row.size = 0;
  for (std::uint32_t e = 0; e < histogram.size(); e += 8) {
    const __m256i zero = _mm256_cmpeq_epi32(load256(&histogram[e]), _mm256_setzero_si256());
    for (std::uint32_t occurs = ~static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(zero))) & 0xff;
         occurs != 0; occurs &= occurs - 1) {
      const std::uint32_t at = e + static_cast<std::uint32_t>(std::countr_zero(occurs));
      row.exponent[row.size] = static_cast<std::uint8_t>(at);
      row.count[row.size++] = histogram[at];
    }
  }
}

// ---- encode ---------------------------------------------------------------------------------------------------------

/// One k-step of an octet, split into byte planes. Bytes lie as [h][g][t]: the high 128-bit lane is h = 1.
struct Split {
  __m256i sign_mantissa, exponent;
};

Split split_step(const std::uint16_t* row, const std::uint16_t* row8) {
  const __m256i a = load256(row), b = load256(row8);
  const __m256i sign = _mm256_set1_epi16(0x80), mantissa = _mm256_set1_epi16(0x7f), byte = _mm256_set1_epi16(0xff);
  const auto sign_mantissa = [&](__m256i w) {
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(w, 8), sign), _mm256_and_si256(w, mantissa));
  };
  const auto exponent = [&](__m256i w) { return _mm256_and_si256(_mm256_srli_epi16(w, 7), byte); };
  return {_mm256_packus_epi16(sign_mantissa(a), sign_mantissa(b)), _mm256_packus_epi16(exponent(a), exponent(b))};
}

/// Two k-steps (v = 0, 1) of units of two bytes, each [h][g][t], to the four chunks [t][v][g][h].
void to_chunks(__m256i step0, __m256i step1, __m128i (&chunk)[4]) {
  const auto by_t = [](__m256i step, __m128i& t01, __m128i& t23) {
    const __m128i h0 = _mm256_castsi256_si128(step), h1 = _mm256_extracti128_si256(step, 1);
    const __m128i g0 = _mm_unpacklo_epi16(h0, h1), g1 = _mm_unpackhi_epi16(h0, h1);  // [t][h]
    t01 = _mm_unpacklo_epi32(g0, g1);                                                // [t][g][h]
    t23 = _mm_unpackhi_epi32(g0, g1);
  };
  __m128i a01, a23, b01, b23;
  by_t(step0, a01, a23);
  by_t(step1, b01, b23);
  chunk[0] = _mm_unpacklo_epi64(a01, b01);
  chunk[1] = _mm_unpackhi_epi64(a01, b01);
  chunk[2] = _mm_unpacklo_epi64(a23, b23);
  chunk[3] = _mm_unpackhi_epi64(a23, b23);
}

/// Codes (0 for exceptions) and exception bytes (0xff) of one k-step.
struct Coded {
  __m256i code, outside;
};

Coded look_up(__m256i exponent, const __m256i (&palette)[kPaletteSize]) {
  __m256i inside = _mm256_cmpeq_epi8(exponent, palette[0]), code = _mm256_setzero_si256();
  for (std::uint32_t j = 1; j < kPaletteSize; ++j) {
    const __m256i equal = _mm256_cmpeq_epi8(exponent, palette[j]);
    inside = _mm256_or_si256(inside, equal);
    code = _mm256_or_si256(code, _mm256_and_si256(equal, _mm256_set1_epi8(static_cast<char>(j))));
  }
  return {code, _mm256_xor_si256(inside, _mm256_set1_epi8(-1))};
}

/// The same where both rows' palettes are windows of consecutive exponents, as nearly all are.
Coded look_up_window(__m256i exponent, __m256i lowest) {
  const __m256i code = _mm256_sub_epi8(exponent, lowest);
  const __m256i inside = _mm256_cmpeq_epi8(_mm256_min_epu8(code, _mm256_set1_epi8(kPaletteSize - 1)), code);
  return {_mm256_and_si256(code, inside), _mm256_xor_si256(inside, _mm256_set1_epi8(-1))};
}

bool encode_avx2(const std::uint16_t* values, std::size_t stride, const StripPalettes& palettes, std::byte* tile,
                 ExceptionMask& exceptions) {
  exceptions.fill(0);
  bool any = false;
  const __m256i pair = _mm256_set1_epi16(0x1001);  // code of b = 0 plus 16 times the code of b = 1
  for (std::uint32_t octet = 0; octet < kOctets; ++octet) {
    const std::uint16_t* row = values + octet * stride;
    const std::uint16_t* row8 = row + 8 * stride;
    // Palette entry j of both rows where the row's values lie in a Split: [h][g][t].
    __m256i palette[kPaletteSize];
    std::uint64_t p0, p8;
    std::memcpy(&p0, palettes.plain[octet].data(), 8);
    std::memcpy(&p8, palettes.plain[octet + 8].data(), 8);
    for (std::uint32_t j = 0; j < kPaletteSize; ++j) {
      const std::uint64_t ones = 0x0101010101010101U;
      palette[j] = _mm256_broadcastsi128_si256(_mm_set_epi64x(static_cast<long long>((p8 >> 8 * j & 255) * ones),
                                                              static_cast<long long>((p0 >> 8 * j & 255) * ones)));
    }
    const auto is_window = [&](const Palette& p) { return p[kPaletteSize - 1] - p[0] == kPaletteSize - 1; };
    const bool windows = is_window(palettes.plain[octet]) && is_window(palettes.plain[octet + 8]);
    const auto look_up_any = [&](__m256i exponent) {
      return windows ? look_up_window(exponent, palette[0]) : look_up(exponent, palette);
    };
    __m128i code_units[2][4];  // [half][t]: 8 units of 16 bits, each two codes in a byte
    for (std::uint32_t half = 0; half < 2; ++half) {
      const std::uint32_t col = 32 * half;
      const Split a = split_step(row + col, row8 + col), b = split_step(row + col + 16, row8 + col + 16);
      __m128i chunk[4];
      to_chunks(a.sign_mantissa, b.sign_mantissa, chunk);
      std::byte* plane = tile + half * kHalfBytes + octet * kOctetBytes;
      for (std::uint32_t t = 0; t < 4; ++t) store128(plane + 16 * t, chunk[t]);

      const Coded ca = look_up_any(a.exponent), cb = look_up_any(b.exponent);
      to_chunks(_mm256_maddubs_epi16(ca.code, pair), _mm256_maddubs_epi16(cb.code, pair), code_units[half]);
      if (!_mm256_testz_si256(_mm256_or_si256(ca.outside, cb.outside), _mm256_set1_epi8(-1))) {
        any = true;
        to_chunks(ca.outside, cb.outside, chunk);
        for (std::uint32_t t = 0; t < 4; ++t) {
          exceptions[half * 32 + octet * 4 + t] = static_cast<std::uint16_t>(_mm_movemask_epi8(chunk[t]));
        }
      }
    }
    // Words 0 and 1 of each lane are half 0's codes, words 2 and 3 half 1's; word 3 goes into the spare bits.
    const __m256i half0 = _mm256_setr_m128i(_mm_packus_epi16(code_units[0][0], code_units[0][1]),
                                            _mm_packus_epi16(code_units[0][2], code_units[0][3]));
    const __m256i half1 = _mm256_setr_m128i(_mm_packus_epi16(code_units[1][0], code_units[1][1]),
                                            _mm_packus_epi16(code_units[1][2], code_units[1][3]));
    const __m256i word3 = _mm256_shuffle_epi32(half1, 0xF5);
    const __m256i spare = _mm256_sllv_epi32(_mm256_and_si256(word3, _mm256_set1_epi64x(0x2222222211111111)),
                                            _mm256_set1_epi64x(std::int64_t{2} << 32 | 3));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile + kCodes01Offset + octet * 32), _mm256_or_si256(half0, spare));
    const __m256i word2 =
        _mm256_or_si256(half1, _mm256_slli_epi32(_mm256_and_si256(word3, _mm256_set1_epi32(0x44444444)), 1));
    const __m256i even = _mm256_permutevar8x32_epi32(word2, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    store128(tile + kCodes2Offset + octet * 16, _mm256_castsi256_si128(even));
  }
  return any;
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

constexpr TileKernels kAvx2{"avx2", xxh3_avx2, count_exponents_avx2, encode_avx2, decode_avx2};

}  // namespace

const TileKernels& avx2_tile_kernels() noexcept { return kAvx2; }

}  // namespace unweight::codec
