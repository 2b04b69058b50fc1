// SPDX-License-Identifier: Apache-2.0
//
// What the AVX2 encoder and decoder of the distribution form share. Functions are static: nothing compiled for AVX2 may
// be merged with code for any CPU.
#pragma once

#include <array>
#include <codec/rans_kernels.hpp>
#include <cstdint>
#include <immintrin.h>
#include <span>

namespace unweight::codec::distribution {

static inline __m128i load128(const void* at) { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
static inline __m256i load256(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
static inline void store128(void* at, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(at), v); }
static inline void store256(void* at, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(at), v); }

/// Eight numbers of lanes, for a permutation.
static inline __m256i lane_numbers(const std::array<std::uint8_t, 8>& numbers) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(numbers.data())));
}

/// RansKernels::decode.
void decode_avx2(std::span<DecodeJob> jobs);

}  // namespace unweight::codec::distribution
