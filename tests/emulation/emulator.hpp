// SPDX-License-Identifier: Apache-2.0
//
// Runs CUDA kernels on the CPU, one cluster of thread blocks after another, so that their logic is tested where there
// is no GPU: indices, the protocol of barriers and asynchronous copies, exchanges between lanes. Not their speed, nor
// the exact rounding of the tensor cores' sums.
//
// Every thread of a cluster is a fibre. One runs at a time, until it waits; who goes on then is drawn at random from a
// seed, and so is when an asynchronous copy does its work. Until a copy does, its destination holds garbage. So a
// kernel that misses a barrier is likely to fail under some seed, and one that waits for ever is reported.
//
// The kernels' sources are compiled as they are: the folder tests/emulation comes before src in the include path, and
// has its own <cuda.h>, <vector_types.h> and <cuda/ptx/...>.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace unweight::emulation {

inline constexpr std::uint32_t kWarpLanes = 32;
inline constexpr std::uint32_t kMostClusterBlocks = 8;
inline constexpr std::uint32_t kMostClusterThreads = 1024 * kMostClusterBlocks;
inline constexpr std::size_t kSharedBytes = 232448;  ///< what a block may use on compute capability 9.0

struct Grid {
  std::uint32_t blocks, threads;
  std::uint32_t cluster = 1;  ///< blocks, of which `blocks` is a multiple
};

/// Runs body() for every thread of every block. Throws std::runtime_error where the hardware would hang, fault or
/// overwrite: no thread can go on, a barrier gets more than it expects, an address is outside shared memory.
void launch(const Grid& grid, std::size_t shared_bytes, std::uint64_t seed, const std::function<void()>& body);

// ---- for the twins of device functions; called by the running thread ------------------------------------------------

/// The running thread's number in its cluster.
[[nodiscard]] std::uint32_t thread_of_cluster() noexcept;

/// The block's dynamic shared memory; its addresses begin at 0.
[[nodiscard]] std::byte* shared_memory() noexcept;
/// Throws unless the range lies in the block's shared memory and is aligned.
[[nodiscard]] std::byte* shared_range(std::uint32_t address, std::size_t bytes, std::size_t alignment);
/// Likewise in that of the cluster's block `rank`, after all of the cluster's threads have begun.
[[nodiscard]] std::byte* cluster_range(std::uint32_t rank, std::uint32_t address, std::size_t bytes,
                                       std::size_t alignment);

/// All 32 lanes of the running warp give `bytes` bytes each and get everybody's, lane after lane. Valid until the
/// lane's next exchange.
[[nodiscard]] const std::byte* exchange(const void* mine, std::size_t bytes);

/// Waits for `threads` threads that name the same barrier.
void sync_threads(std::uint32_t name, std::uint32_t threads);
/// Takes part without waiting.
void arrive_at_named(std::uint32_t name, std::uint32_t threads);
/// As many as the block has.
void sync_block();

/// The cluster's barrier, which does not count threads that have ended.
void cluster_arrive();
void cluster_wait();

void barrier_init(std::uint32_t address, std::uint32_t arrivals);
void barrier_arrive(std::uint32_t address);
void barrier_expect(std::uint32_t address, std::uint32_t bytes);
void barrier_wait(std::uint32_t address, std::uint32_t parity);

/// As barrier_arrive(), in the cluster's block `rank`.
void barrier_arrive_at(std::uint32_t rank, std::uint32_t address);
/// As copy_later(), into the cluster's block `rank` and towards its barrier.
void copy_later_to(std::uint32_t rank, std::uint32_t to, std::uint32_t bytes, std::uint32_t barrier,
                   std::function<void()> work);

/// Stores into the cluster's block `rank`, at once, and towards its barrier.
void store_to(std::uint32_t rank, std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier);

/// `work` fills shared memory from `to` on some time later; then `bytes` count towards the barrier's phase.
void copy_later(std::uint32_t to, std::uint32_t bytes, std::uint32_t barrier, std::function<void()> work);
/// Likewise, without a barrier: arrive_after_copies() tells when.
void thread_copy_later(std::uint32_t to, std::uint32_t bytes, std::function<void()> work);
/// Waits for them.
void wait_for_copies();
/// Arrives at the barrier when all of the running thread's thread_copy_later() so far are done.
void arrive_after_copies(std::uint32_t barrier);

}  // namespace unweight::emulation
