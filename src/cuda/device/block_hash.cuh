// SPDX-License-Identifier: Apache-2.0
//
// XXH3-64 of a range of memory by a thread block (xxh3.cuh). All warps but the first add up the stripes of blocks of
// 1 KiB ahead, four blocks a warp at a time; meanwhile eight lanes of the first follow the chain from block to block,
// which is what a long range takes:
//
//   adders, 8 warps   4 KiB a warp, asked for two rounds ahead  -->  sums of 32 blocks, two rounds of them in shared
//   chain, 8 lanes    state = scramble(state) + sums of a block: SHF, LOP3, IMAD.WIDE, some 14 cycles
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/xxh3.cuh>

namespace unweight::device {

inline constexpr std::uint32_t kHashAdders = 8;  ///< warps
inline constexpr std::uint32_t kHashThreads = (1 + kHashAdders) * kLanes;

/// Shared memory of a block that hashes.
struct HashStorage {
  static constexpr std::uint32_t kAdderBlocks = 4;                     ///< that a warp adds up at a time
  static constexpr std::uint32_t kRound = kHashAdders * kAdderBlocks;  ///< blocks that are added up ahead
  /// The last block, which is not scrambled, and the stripe before it, into which the last 64 bytes may reach.
  static constexpr std::uint32_t kMostTail = kStripeBytes + kHashBlockBytes;

  std::uint64_t sums[2][kRound][kStripeWords];
  std::uint64_t secret[kXxh3SecretBytes / sizeof(std::uint64_t)];
  std::uint64_t last[kStripeWords];
  alignas(16) std::byte tail[kMostTail];
};

/// Adds up the stripes of four blocks of 1 KiB with a warp, eight lanes a block. Lane l has 16 bytes of each pair of
/// stripes: words 2 (l % 4) and the next of the stripes whose number is l / 4 modulo 2.
class StripeAdder {
 public:
  static constexpr std::uint32_t kPairs = kBlockStripes / 2;
  static constexpr std::uint32_t kVector = 16;  ///< bytes

  /// A lane's part of its block.
  struct Part {
    uint4 vectors[kPairs];
  };

  __device__ explicit StripeAdder(std::uint32_t lane) : lane_(lane) {}

  /// Blocks `first` to first + 3 of `count`, those that there are.
  [[nodiscard]] __device__ Part load(const std::byte* data, std::uint64_t first, std::uint64_t count) const {
    const std::uint64_t block = first + lane_ / 8;
    Part part{};
    if (block < count) {
      const auto* vectors = reinterpret_cast<const uint4*>(data + block * kHashBlockBytes) + lane_ % 8;
      UNWEIGHT_UNROLL
      for (std::uint32_t j = 0; j < kPairs; ++j) part.vectors[j] = vectors[j * (2 * kStripeBytes / kVector)];
    }
    return part;
  }

  /// Sets the four blocks' sums.
  __device__ void add(const Part& part, const std::uint64_t* secret, std::uint64_t (*sums)[kStripeWords]) const {
    const std::uint32_t word = 2 * (lane_ % 4), odd = lane_ / 4 % 2;
    const std::uint64_t* const keys = secret + odd + word;
    std::uint64_t sum0 = 0, sum1 = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t j = 0; j < kPairs; ++j) {
      const uint4& vector = part.vectors[j];
      const std::uint64_t word0 = std::uint64_t{vector.y} << 32 | vector.x,
                          word1 = std::uint64_t{vector.w} << 32 | vector.z;
      sum0 += word_product(word0, keys[2 * j]) + word1;
      sum1 += word_product(word1, keys[2 * j + 1]) + word0;
    }
    // The lane with the other stripes gives one of the sums and takes the other.
    const std::uint64_t given = odd == 0 ? sum1 : sum0, kept = odd == 0 ? sum0 : sum1;
    sums[lane_ / 8][word + odd] = kept + exchange(given, 4);
  }

 private:
  static __device__ std::uint64_t exchange(std::uint64_t value, std::uint32_t distance) {
    const std::uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<std::uint32_t>(value), distance);
    const std::uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<std::uint32_t>(value >> 32), distance);
    return std::uint64_t{high} << 32 | low;
  }

  std::uint32_t lane_;
};

/// A round of the chain: the state after `count` more blocks.
__device__ inline std::uint64_t follow_chain(std::uint64_t state, const std::uint64_t (*sums)[kStripeWords],
                                             std::uint32_t word, std::uint32_t count, std::uint64_t key) {
  if (count == HashStorage::kRound) {
    state += sums[0][word];
    UNWEIGHT_UNROLL
    for (std::uint32_t i = 1; i < HashStorage::kRound; ++i) state = scramble_and_add(state, key, sums[i][word]);
    return scramble_and_add(state, key, 0);
  }
  for (std::uint32_t i = 0; i < count; ++i) state = scramble_and_add(state + sums[i][word], key, 0);
  return state;
}

/// Bytes [begin, end) of `data` to `to`, by a warp; data + begin is aligned to 16 bytes.
__device__ inline void copy_tail(std::byte* to, const std::byte* data, std::uint64_t begin, std::uint64_t end,
                                 std::uint32_t lane) {
  const auto size = static_cast<std::uint32_t>(end - begin), vectors = size / StripeAdder::kVector;
  for (std::uint32_t i = lane; i < vectors; i += kLanes) {
    reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(data + begin)[i];
  }
  for (std::uint32_t i = vectors * StripeAdder::kVector + lane; i < size; i += kLanes) to[i] = data[begin + i];
}

/// The hash of `size` bytes from `data` on, which is aligned to 16 bytes. By all kHashThreads threads of a block;
/// thread 0 gets it. `storage` may be used again at once.
__device__ inline std::uint64_t hash_range(const std::byte* data, std::uint64_t size, HashStorage& storage) {
  // From a shuffle, so that the compiler knows it to be the same in all lanes.
  const std::uint32_t warp = __shfl_sync(kAllLanes, threadIdx.x / kLanes, 0), lane = threadIdx.x % kLanes;
  const bool is_short = size <= kShortHashBytes;
  const std::uint64_t blocks = is_short ? 0 : (size - 1) / kHashBlockBytes;
  const std::uint64_t tail_begin = blocks == 0 ? 0 : blocks * kHashBlockBytes - kStripeBytes;

  const StripeAdder adder(lane);
  StripeAdder::Part even{}, odd{};  // what comes in rounds of an even number, and of an odd one
  const auto load_round = [&](std::uint64_t first_of_round) {
    return adder.load(data, first_of_round + HashStorage::kAdderBlocks * (warp - 1), blocks);
  };
  if (warp != 0) {
    even = load_round(0);
    odd = load_round(HashStorage::kRound);
  } else {
    copy_tail(storage.tail, data, tail_begin, size, lane);
    if (lane < kXxh3SecretBytes / sizeof(std::uint64_t)) storage.secret[lane] = kXxh3Secret[lane];
  }
  __syncthreads();
  if (is_short) {
    const std::uint64_t hash = threadIdx.x == 0 ? xxh3_short(storage.tail, static_cast<std::uint32_t>(size)) : 0;
    __syncthreads();
    return hash;
  }
  /// The sums of the adder's blocks of a round; then asks for those two rounds later.
  const auto add_round = [&](StripeAdder::Part& part, std::uint64_t first_of_round, std::uint32_t parity) {
    adder.add(part, storage.secret, storage.sums[parity] + HashStorage::kAdderBlocks * (warp - 1));
    part = load_round(first_of_round + 2 * HashStorage::kRound);
  };
  const bool on_chain = threadIdx.x < kStripeWords;
  std::uint64_t sum = first_sum(lane % kStripeWords);
  const std::uint64_t key = scramble_key(lane % kStripeWords);
  const auto advance = [&](StripeAdder::Part& next, std::uint64_t first, std::uint32_t parity) {
    if (warp != 0) {
      add_round(next, first + HashStorage::kRound, parity ^ 1);
    } else if (on_chain && first < blocks) {
      const std::uint64_t left = blocks - first;
      const std::uint32_t count = left < HashStorage::kRound ? static_cast<std::uint32_t>(left) : HashStorage::kRound;
      sum = follow_chain(sum, storage.sums[parity], lane, count, key);
    }
    __syncthreads();
  };
  if (warp != 0) add_round(even, 0, 0);
  __syncthreads();
  for (std::uint64_t first = 0; first < blocks; first += 2 * HashStorage::kRound) {
    advance(odd, first, 0);
    advance(even, first + HashStorage::kRound, 1);
  }

  // What is left: whole stripes of a last block, then the last 64 bytes once more, which may be anywhere.
  if (on_chain) {
    const std::byte* rest = storage.tail + (blocks * kHashBlockBytes - tail_begin);
    const auto stripes = static_cast<std::uint32_t>((size - 1 - blocks * kHashBlockBytes) / kStripeBytes);
    const auto add = [&](const std::byte* stripe, std::uint64_t word_key) {
      sum += word_product(load64(stripe + 8 * lane), word_key) + load64(stripe + 8 * (lane ^ 1));
    };
    for (std::uint32_t i = 0; i < stripes; ++i) add(rest + i * kStripeBytes, storage.secret[i + lane]);
    add(storage.tail + (size - tail_begin) - kStripeBytes, last_stripe_key(lane));
    storage.last[lane] = sum;
  }
  __syncthreads();
  const std::uint64_t hash = threadIdx.x == 0 ? merge_sums(storage.last, size) : 0;
  __syncthreads();
  return hash;
}

}  // namespace unweight::device
