// SPDX-License-Identifier: Apache-2.0
//
// Thread block clusters, one wrapper an instruction (PTX ISA, "barrier.cluster", "mapa"): blocks that run at a time and
// reach each other's shared memory.
#pragma once

#include <cstdint>

namespace unweight::ptx {

/// Arrives at the cluster's barrier: its phase completes when all of the cluster's threads have, or have ended. Orders
/// nothing.
__device__ __forceinline__ void cluster_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}

/// Arrives; what this thread has written comes before.
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }

/// Waits for the phase at which this thread has arrived; what others wrote before they arrived is there.
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

/// What has `address` in the shared memory of the cluster's block `rank`, for store_to_cluster().
__device__ __forceinline__ std::uint32_t cluster_address(std::uint32_t address, std::uint32_t rank) {
  std::uint32_t result;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(result) : "r"(address), "r"(rank));
  return result;
}

__device__ __forceinline__ void store_to_cluster(std::uint32_t to, const float (&values)[1]) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(to), "f"(values[0]) : "memory");
}
__device__ __forceinline__ void store_to_cluster(std::uint32_t to, const float (&values)[2]) {
  asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(values[0]), "f"(values[1]) : "memory");
}
__device__ __forceinline__ void store_to_cluster(std::uint32_t to, const float (&values)[4]) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(values[0]), "f"(values[1]),
               "f"(values[2]), "f"(values[3])
               : "memory");
}

/// Arrives at the barrier of that address in the cluster's block `rank`. Orders what this block's threads see, not the
/// other's: at cluster scope it would take a microsecond. Enough after wgmma_wait(), which leaves no read under way.
__device__ __forceinline__ void barrier_arrive_at(std::uint32_t barrier, std::uint32_t rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(cluster_address(barrier, rank)) : "memory");
}

/// Stores to an address, a multiple of 16, and towards the phase of a barrier, both by cluster_address() and of the
/// same block. Whoever waits for that phase sees the values: neither side needs a fence, which would take a
/// microsecond.
__device__ __forceinline__ void store_async_to_cluster(std::uint32_t to, const float (&values)[4],
                                                       std::uint32_t barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
               "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
               : "memory");
}

}  // namespace unweight::ptx
