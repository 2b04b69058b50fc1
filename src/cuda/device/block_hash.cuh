// SPDX-License-Identifier: Apache-2.0
//
// XXH3-64 of a range of memory by a thread block (xxh3.cuh). All warps but the first add up the stripes of some blocks
// of 1 KiB ahead, a warp a block; meanwhile eight lanes of the first follow the chain from block to block, some 30
// cycles a link: what a long range takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/xxh3.cuh>
#include <cuda/ptx/registers.cuh>

namespace unweight::device {

inline constexpr std::uint32_t kHashWarps = 8;
inline constexpr std::uint32_t kHashThreads = kHashWarps * kLanes;

/// Shared memory of a block that hashes.
struct HashStorage {
  static constexpr std::uint32_t kRound = 32;  ///< blocks that are added up ahead
  std::uint64_t sums[2][kRound][kStripeWords];
  std::uint64_t last[kStripeWords];
};

/// Adds up the stripes of a block of 1 KiB, aligned to 16 bytes, with a warp.
struct StripeAdder {
  std::uint32_t lane;
  std::uint64_t keys[2][2];

  /// A lane's 16 bytes are words 2 (lane % 4) and the next of stripes lane / 4 and lane / 4 + 8.
  __device__ explicit StripeAdder(std::uint32_t lane_in) : lane(lane_in) {
    for (std::uint32_t h = 0; h < 2; ++h) {
      for (std::uint32_t i = 0; i < 2; ++i) keys[h][i] = stripe_key(lane / 4 + 8 * h, 2 * (lane % 4) + i);
    }
  }

  /// A lane's part of a block.
  struct Part {
    uint4 halves[2];
  };
  [[nodiscard]] __device__ Part load(const std::byte* block) const {
    const auto* vectors = reinterpret_cast<const uint4*>(block);
    return {{vectors[lane], vectors[lane + kLanes]}};
  }

  __device__ void add(const Part& part, std::uint64_t* sums) const {
    std::uint64_t sum0 = 0, sum1 = 0;
    UNWEIGHT_UNROLL
    for (std::uint32_t h = 0; h < 2; ++h) {
      const uint4& words = part.halves[h];
      const std::uint64_t word0 = std::uint64_t{words.y} << 32 | words.x,
                          word1 = std::uint64_t{words.w} << 32 | words.z;
      sum0 += word_product(word0, keys[h][0]) + word1;
      sum1 += word_product(word1, keys[h][1]) + word0;
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t distance = 4; distance < kLanes; distance *= 2) {
      sum0 += exchange(sum0, distance);
      sum1 += exchange(sum1, distance);
    }
    // Of a condition that does not change in the caller's loop, the compiler makes two loops, one for each outcome; the
    // lanes would meet for exchanges from both, some 200 cycles each. So it may not know.
    std::uint32_t storing = 4;
    ptx::keep(storing);
    if (lane < storing) {
      sums[2 * lane] = sum0;
      sums[2 * lane + 1] = sum1;
    }
  }

 private:
  static __device__ std::uint64_t exchange(std::uint64_t value, std::uint32_t distance) {
    const std::uint32_t low = __shfl_xor_sync(kAllLanes, static_cast<std::uint32_t>(value), distance);
    const std::uint32_t high = __shfl_xor_sync(kAllLanes, static_cast<std::uint32_t>(value >> 32), distance);
    return std::uint64_t{high} << 32 | low;
  }
};

/// The hash of `size` bytes from `data` on, which is aligned to 16 bytes. By all kHashThreads threads of a block;
/// thread 0 gets it. `storage` may be used again at once.
__device__ inline std::uint64_t hash_range(const std::byte* data, std::uint64_t size, HashStorage& storage) {
  const std::uint32_t warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  if (size <= kShortHashBytes) return threadIdx.x == 0 ? xxh3_short(data, static_cast<std::uint32_t>(size)) : 0;

  const std::uint64_t blocks = (size - 1) / kHashBlockBytes;
  const StripeAdder adder(lane);
  const auto add_round = [&](std::uint64_t first, std::uint32_t parity) {
    // All of a warp's loads are under way before the first is waited for.
    constexpr std::uint32_t kMost = (HashStorage::kRound + kHashWarps - 2) / (kHashWarps - 1);
    StripeAdder::Part parts[kMost];
    const auto exists = [&](std::uint32_t i) { return i < HashStorage::kRound && first + i < blocks; };
    UNWEIGHT_UNROLL
    for (std::uint32_t n = 0; n < kMost; ++n) {
      const std::uint32_t i = warp - 1 + n * (kHashWarps - 1);
      if (exists(i)) parts[n] = adder.load(data + (first + i) * kHashBlockBytes);
    }
    UNWEIGHT_UNROLL
    for (std::uint32_t n = 0; n < kMost; ++n) {
      const std::uint32_t i = warp - 1 + n * (kHashWarps - 1);
      if (exists(i)) adder.add(parts[n], storage.sums[parity][i]);
    }
  };
  const bool on_chain = threadIdx.x < kStripeWords;
  std::uint64_t sum = first_sum(lane % kStripeWords);
  const std::uint64_t key = scramble_key(lane % kStripeWords);
  if (warp != 0) add_round(0, 0);
  __syncthreads();
  std::uint32_t parity = 0;
  for (std::uint64_t first = 0; first < blocks; first += HashStorage::kRound, parity ^= 1) {
    if (warp != 0) {
      add_round(first + HashStorage::kRound, parity ^ 1);
    } else if (on_chain) {
      const std::uint64_t left = blocks - first;
      const std::uint32_t count = left < HashStorage::kRound ? static_cast<std::uint32_t>(left) : HashStorage::kRound;
      UNWEIGHT_UNROLL_4
      for (std::uint32_t i = 0; i < count; ++i) sum = scramble(sum + storage.sums[parity][i][lane], key);
    }
    __syncthreads();
  }

  // What is left: whole stripes of a last block, then the last 64 bytes once more, which may be anywhere.
  if (on_chain) {
    const std::byte* rest = data + blocks * kHashBlockBytes;
    const auto stripes = static_cast<std::uint32_t>((size - 1 - blocks * kHashBlockBytes) / kStripeBytes);
    for (std::uint32_t stripe = 0; stripe <= stripes; ++stripe) {
      const bool is_last = stripe == stripes;
      const std::byte* at = is_last ? data + size - kStripeBytes : rest + stripe * kStripeBytes;
      const std::uint64_t word_key = is_last ? last_stripe_key(lane) : stripe_key(stripe, lane);
      sum += word_product(load64(at + 8 * lane), word_key) + load64(at + 8 * (lane ^ 1));
    }
    storage.last[lane] = sum;
  }
  __syncthreads();
  const std::uint64_t hash = threadIdx.x == 0 ? merge_sums(storage.last, size) : 0;
  __syncthreads();
  return hash;
}

}  // namespace unweight::device
