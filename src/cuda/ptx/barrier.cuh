// SPDX-License-Identifier: Apache-2.0
//
// Shared memory and mbarrier, one wrapper an instruction (PTX ISA, "Parallel Synchronization and Communication
// Instructions: mbarrier"). A barrier is 8 bytes of shared memory, named here by its shared-memory address. A phase
// completes when all expected arrivals have been made and all expected bytes have come.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unweight::ptx {

/// The block's dynamic shared memory, aligned to 1024 bytes.
__device__ __forceinline__ std::byte* dynamic_shared_memory() {
  extern __shared__ __align__(1024) std::byte unweight_dynamic_shared_memory[];
  return unweight_dynamic_shared_memory;
}

/// Address of a shared-memory object in the shared window, which is what the instructions below take.
__device__ __forceinline__ std::uint32_t shared_address(const void* object) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(object));
}

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Makes initialised barriers visible to the copy engine. By the thread that initialised them.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives, and lets the phase wait for `bytes` more.
__device__ __forceinline__ void barrier_arrive_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// Arrives when all of this thread's copy_async16() so far have come. One of the barrier's expected arrivals.
__device__ __forceinline__ void barrier_arrive_after_async(std::uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/// Waits until the phase of that parity has completed: 0 for a barrier's first phase, then 1, 0, 1, ...
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again_%=;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// Waits for `threads` threads, whole warps, that name the same one of the block's 16 barriers; 0 is __syncthreads()'s.
__device__ __forceinline__ void named_barrier_sync(std::uint32_t name, std::uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

/// Takes part in such a barrier without waiting.
__device__ __forceinline__ void named_barrier_arrive(std::uint32_t name, std::uint32_t threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

}  // namespace unweight::ptx
