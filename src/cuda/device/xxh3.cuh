// SPDX-License-Identifier: Apache-2.0
//
// XXH3-64 with seed 0 and the default secret, which the formats' checksums are (docs/FORMAT.md, section 5), written
// from its specification (Y. Collet, xxHash, "XXH3 algorithm"). Here is what one thread does: hashes of up to 240
// bytes, and the pieces of longer ones, which block_hash.cuh shares out among a thread block:
//
//   stripe   64 bytes, 8 words; word i goes into two of 8 sums:  sum[i] += low(word ^ key) * high(word ^ key)
//                                                                sum[i ^ 1] += word
//   block    16 stripes, 1 KiB, after which the sums are scrambled
//
// Within a block sums only add up, so its stripes can be added in any order; from block to block there is a chain.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>

#if defined(__CUDACC__)
#define UNWEIGHT_DEVICE_TABLE static __constant__ const
#else
#define UNWEIGHT_DEVICE_TABLE static const
#endif

namespace unweight::device {

UNWEIGHT_DEVICE_TABLE std::uint64_t kXxh3Secret[24] = {
    0xbe4ba423396cfeb8ULL, 0x1cad21f72c81017cULL, 0xdb979083e96dd4deULL, 0x1f67b3b7a4a44072ULL, 0x78e5c0cc4ee679cbULL,
    0x2172ffcc7dd05a82ULL, 0x8e2443f7744608b8ULL, 0x4c263a81e69035e0ULL, 0xcb00c391bb52283cULL, 0xa32e531b8b65d088ULL,
    0x4ef90da297486471ULL, 0xd8acdea946ef1938ULL, 0x3f349ce33f76faa8ULL, 0x1d4f0bc7c7bbdcf9ULL, 0x3159b4cd4be0518aULL,
    0x647378d9c97e9fc8ULL, 0xc3ebd33483acc5eaULL, 0xeb6313faffa081c5ULL, 0x49daf0b751dd0d17ULL, 0x9e68d429265516d3ULL,
    0xfca1477d58be162bULL, 0xce31d07ad1b8f88fULL, 0x280416958f3acb45ULL, 0x7e404bbbcafbd7afULL};
inline constexpr std::uint32_t kXxh3SecretBytes = 192;

inline constexpr std::uint32_t kStripeBytes = 64;
inline constexpr std::uint32_t kStripeWords = 8;
inline constexpr std::uint32_t kBlockStripes = 16;
inline constexpr std::uint32_t kHashBlockBytes = kBlockStripes * kStripeBytes;
inline constexpr std::uint64_t kShortHashBytes = 240;  ///< hashed otherwise than in stripes

inline constexpr std::uint32_t kXxhSmallPrime1 = 0x9E3779B1U, kXxhSmallPrime2 = 0x85EBCA77U,
                               kXxhSmallPrime3 = 0xC2B2AE3DU;
inline constexpr std::uint64_t kXxhPrime1 = 0x9E3779B185EBCA87ULL, kXxhPrime2 = 0xC2B2AE3D27D4EB4FULL,
                               kXxhPrime3 = 0x165667B19E3779F9ULL, kXxhPrime4 = 0x85EBCA77C2B2AE63ULL,
                               kXxhPrime5 = 0x27D4EB2F165667C5ULL;

/// Eight bytes of the secret, from any of them on.
__device__ inline std::uint64_t xxh3_secret(std::uint32_t offset) {
  const std::uint32_t word = offset / 8, shift = offset % 8 * 8;
  const std::uint64_t low = kXxh3Secret[word] >> shift;
  return shift == 0 ? low : low | kXxh3Secret[word + 1] << (64 - shift);
}

/// Bytes at any address, little-endian.
__device__ inline std::uint64_t load_bytes(const std::byte* at, std::uint32_t count) {
  std::uint64_t value = 0;
  for (std::uint32_t i = 0; i < count; ++i) value |= std::uint64_t{static_cast<std::uint8_t>(at[i])} << 8 * i;
  return value;
}
__device__ inline std::uint64_t load64(const std::byte* at) {
  return reinterpret_cast<std::uintptr_t>(at) % 8 == 0 ? *reinterpret_cast<const std::uint64_t*>(at)
                                                       : load_bytes(at, 8);
}

__device__ inline std::uint64_t rotate_left(std::uint64_t value, std::uint32_t by) {
  return value << by | value >> (64 - by);
}

__device__ inline std::uint64_t reverse_bytes(std::uint64_t value) {
  std::uint64_t result = 0;
  for (std::uint32_t i = 0; i < 8; ++i) result = result << 8 | (value >> 8 * i & 0xff);
  return result;
}

/// The 128 bits of a product, the high half added bitwise to the low one.
__device__ inline std::uint64_t fold_product(std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH__)
  return (a * b) ^ __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
#endif
}

__device__ inline std::uint64_t xxh3_avalanche(std::uint64_t h) {
  h ^= h >> 37;
  h *= 0x165667919E3779F9ULL;
  return h ^ h >> 32;
}

__device__ inline std::uint64_t xxh64_avalanche(std::uint64_t h) {
  h = (h ^ h >> 33) * kXxhPrime2;
  h = (h ^ h >> 29) * kXxhPrime3;
  return h ^ h >> 32;
}

/// What 16 bytes add to the hash of 17 to 240 bytes.
__device__ inline std::uint64_t mix16(const std::byte* at, std::uint32_t secret) {
  return fold_product(load64(at) ^ xxh3_secret(secret), load64(at + 8) ^ xxh3_secret(secret + 8));
}

__device__ inline std::uint64_t xxh3_up_to_16(const std::byte* data, std::uint32_t size) {
  if (size == 0) return xxh64_avalanche(xxh3_secret(56) ^ xxh3_secret(64));
  if (size <= 3) {
    const std::uint64_t first = load_bytes(data, 1), middle = load_bytes(data + size / 2, 1),
                        last = load_bytes(data + size - 1, 1);
    const std::uint64_t secret = xxh3_secret(0);
    return xxh64_avalanche((first << 16 | middle << 24 | last | std::uint64_t{size} << 8) ^
                           ((secret ^ secret >> 32) & 0xffffffffU));
  }
  if (size <= 8) {
    const std::uint64_t input = load_bytes(data + size - 4, 4) + (load_bytes(data, 4) << 32);
    std::uint64_t h = input ^ (xxh3_secret(8) ^ xxh3_secret(16));
    h ^= rotate_left(h, 49) ^ rotate_left(h, 24);
    h *= 0x9FB21C651E98DF25ULL;
    h ^= (h >> 35) + size;
    h *= 0x9FB21C651E98DF25ULL;
    return h ^ h >> 28;
  }
  const std::uint64_t low = load64(data) ^ (xxh3_secret(24) ^ xxh3_secret(32));
  const std::uint64_t high = load64(data + size - 8) ^ (xxh3_secret(40) ^ xxh3_secret(48));
  return xxh3_avalanche(size + reverse_bytes(low) + high + fold_product(low, high));
}

/// The hash of at most kShortHashBytes, at any address.
__device__ inline std::uint64_t xxh3_short(const std::byte* data, std::uint32_t size) {
  if (size <= 16) return xxh3_up_to_16(data, size);
  std::uint64_t sum = size * kXxhPrime1;
  if (size <= 128) {
    for (std::uint32_t i = (size - 1) / 32 + 1; i-- > 0;) {
      sum += mix16(data + 16 * i, 32 * i) + mix16(data + size - 16 * (i + 1), 32 * i + 16);
    }
    return xxh3_avalanche(sum);
  }
  for (std::uint32_t i = 0; i < 8; ++i) sum += mix16(data + 16 * i, 16 * i);
  sum = xxh3_avalanche(sum);
  for (std::uint32_t i = 8; i < size / 16; ++i) sum += mix16(data + 16 * i, 16 * (i - 8) + 3);
  return xxh3_avalanche(sum + mix16(data + size - 16, 136 - 17));
}

/// What sum i is at first.
__device__ inline std::uint64_t first_sum(std::uint32_t i) {
  switch (i) {
    case 0:
      return kXxhSmallPrime3;
    case 1:
      return kXxhPrime1;
    case 2:
      return kXxhPrime2;
    case 3:
      return kXxhPrime3;
    case 4:
      return kXxhPrime4;
    case 5:
      return kXxhSmallPrime2;
    case 6:
      return kXxhPrime5;
    default:
      return kXxhSmallPrime1;
  }
}

__device__ inline std::uint64_t word_product(std::uint64_t word, std::uint64_t key) {
  const std::uint64_t mixed = word ^ key;
  return (mixed & 0xffffffffU) * (mixed >> 32);
}

/// The key for word i of a block's stripe is word stripe + i of the secret; that of the last stripe, which ends where
/// the data do:
__device__ inline std::uint64_t last_stripe_key(std::uint32_t i) {
  return xxh3_secret(kXxh3SecretBytes - kStripeBytes - 7 + 8 * i);
}

/// Sum i scrambled after a block, (sum ^ sum >> 47 ^ key) * kXxhSmallPrime1, plus that of the next block's stripes;
/// `key`: scramble_key(i).
__device__ inline std::uint64_t scramble_and_add(std::uint64_t sum, std::uint64_t key, std::uint64_t next) {
  const auto low = static_cast<std::uint32_t>(sum), high = static_cast<std::uint32_t>(sum >> 32);
  return multiply_add(low ^ high >> 15 ^ static_cast<std::uint32_t>(key), high ^ static_cast<std::uint32_t>(key >> 32),
                      kXxhSmallPrime1, next);
}
__device__ inline std::uint64_t scramble_key(std::uint32_t i) {
  return kXxh3Secret[(kXxh3SecretBytes - kStripeBytes) / 8 + i];
}

/// The hash of `size` bytes, more than kShortHashBytes, whose sums these are.
__device__ inline std::uint64_t merge_sums(const std::uint64_t* sums, std::uint64_t size) {
  std::uint64_t h = size * kXxhPrime1;
  for (std::uint32_t i = 0; i < kStripeWords; i += 2) {
    h += fold_product(sums[i] ^ xxh3_secret(11 + 8 * i), sums[i + 1] ^ xxh3_secret(19 + 8 * i));
  }
  return xxh3_avalanche(h);
}

}  // namespace unweight::device
