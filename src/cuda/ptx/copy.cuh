// SPDX-License-Identifier: Apache-2.0
//
// Copies from global to shared memory that run on their own, one wrapper an instruction (PTX ISA, "Data Movement and
// Conversion Instructions: Asynchronous copy").
#pragma once

#include <cstdint>
#include <cuda.h>

namespace unweight::ptx {

/// A cache policy for data that is read once: first to go from the L2 cache.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// Copies `bytes`, a multiple of 16 like both addresses; they count towards the barrier's phase.
__device__ __forceinline__ void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes,
                                          std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

/// Copies a box of a matrix that is described in tiles of 64 columns (launch/tensor_map.hpp): tiles `tile` and on, of
/// each the rows `row` and on. What lies outside the matrix comes as zeros, and counts like all else.
__device__ __forceinline__ void tensor_copy(std::uint32_t to, const CUtensorMap* map, std::uint32_t row,
                                            std::uint32_t tile, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
          "r"(to),
      "l"(map), "r"(0), "r"(row), "r"(tile), "r"(barrier)
      : "memory");
}

/// Likewise, to the same place in all blocks of the cluster whose ranks have a bit in `ranks`; counts towards the phase
/// of the barrier of that address in each.
__device__ __forceinline__ void tensor_copy_to_blocks(std::uint32_t to, const CUtensorMap* map, std::uint32_t row,
                                                      std::uint32_t tile, std::uint32_t barrier, std::uint32_t ranks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(0), "r"(row), "r"(tile), "r"(barrier), "h"(static_cast<std::uint16_t>(ranks))
      : "memory");
}

/// Copies a box of a matrix's tiles (launch/tensor_map.hpp): of strips `strip` and on, tiles `column` and on. What lies
/// outside the matrix comes as zeros, and counts like all else.
__device__ __forceinline__ void tile_copy(std::uint32_t to, const CUtensorMap* map, std::uint32_t column,
                                          std::uint32_t strip, std::uint32_t barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(0), "r"(column), "r"(strip), "r"(barrier), "l"(policy)
      : "memory");
}

/// Fetches a tensor map ahead of its first use.
__device__ __forceinline__ void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/// Copies 16 bytes; both addresses are multiples of 16.
__device__ __forceinline__ void copy_async16(std::uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/// Waits for all of this thread's copy_async16(). A thread that has any under way must not end.
__device__ __forceinline__ void wait_for_async_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// Asks for `bytes`, a multiple of 16 like the address, in the L2 cache.
__device__ __forceinline__ void prefetch_l2(const void* from, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

/// Asks for the 32 bytes around an address in the L2 cache.
__device__ __forceinline__ void prefetch_l2_sector(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

}  // namespace unweight::ptx
