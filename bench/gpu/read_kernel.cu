// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdint>
#include <cuda/ptx/barrier.cuh>
#include <cuda/ptx/copy.cuh>
#include <read_kernel.hpp>

namespace unweight::bench {
namespace {

/// Each block reads one contiguous piece of kThreads * kVectors vectors. It would store what it read if that had a
/// value that the region does not have, so that the compiler has to keep the loads.
template <unsigned kThreads, unsigned kVectors>
__global__ void __launch_bounds__(kThreads) vector_read_kernel(const uint4* from, std::size_t count) {
  const std::size_t first = std::size_t{blockIdx.x} * kThreads * kVectors + threadIdx.x;
  uint4 values[kVectors];
#pragma unroll
  for (unsigned i = 0; i < kVectors; ++i) {
    const std::size_t at = first + i * kThreads;
    values[i] = at < count ? __ldcs(from + at) : uint4{};
  }
  std::uint32_t sum = 0;
#pragma unroll
  for (unsigned i = 0; i < kVectors; ++i) sum |= values[i].x | values[i].y | values[i].z | values[i].w;
  if (sum == 0xffffffffU) const_cast<uint4*>(from)[first].x = 0;
}

template <unsigned kThreads, unsigned kVectors>
void vector_read(const void* from, std::size_t bytes, unsigned, cudaStream_t stream) {
  const std::size_t count = bytes / sizeof(uint4), per_block = kThreads * kVectors;
  const auto blocks = static_cast<unsigned>((count + per_block - 1) / per_block);
  vector_read_kernel<kThreads, kVectors><<<blocks, kThreads, 0, stream>>>(static_cast<const uint4*>(from), count);
}

/// Blocks take chunks in turn, so that at any time the chip reads one region; each keeps kSlots copies under way.
template <unsigned kChunkBytes, unsigned kSlots>
__global__ void __launch_bounds__(32) bulk_read_kernel(const std::byte* from, std::uint32_t chunks) {
  extern __shared__ __align__(128) std::byte ring[];
  __shared__ std::uint64_t barriers[kSlots];
  if (threadIdx.x != 0) return;
  const std::uint32_t first_barrier = ptx::shared_address(barriers), first_slot = ptx::shared_address(ring);
  const std::uint64_t policy = ptx::evict_first_policy();
  for (unsigned slot = 0; slot < kSlots; ++slot) ptx::barrier_init(first_barrier + 8 * slot, 1);
  ptx::fence_barrier_init();
  const auto request = [&](std::uint32_t chunk, unsigned slot) {
    if (chunk >= chunks) return;
    ptx::barrier_arrive_expect(first_barrier + 8 * slot, kChunkBytes);
    ptx::bulk_copy(first_slot + slot * kChunkBytes, from + std::size_t{chunk} * kChunkBytes, kChunkBytes,
                   first_barrier + 8 * slot, policy);
  };
  for (unsigned slot = 0; slot < kSlots; ++slot) request(blockIdx.x + slot * gridDim.x, slot);
  unsigned slot = 0, parity = 0;
  for (std::uint32_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    ptx::barrier_wait(first_barrier + 8 * slot, parity);
    request(chunk + kSlots * gridDim.x, slot);
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
}

template <unsigned kChunkBytes, unsigned kSlots, unsigned kBlocks>
void bulk_read(const void* from, std::size_t bytes, unsigned multiprocessors, cudaStream_t stream) {
  static_assert(kReadGranularity % kChunkBytes == 0);
  constexpr unsigned kRingBytes = kChunkBytes * kSlots;
  const auto kernel = bulk_read_kernel<kChunkBytes, kSlots>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingBytes);
  kernel<<<kBlocks * multiprocessors, 32, kRingBytes, stream>>>(static_cast<const std::byte*>(from),
                                                                static_cast<std::uint32_t>(bytes / kChunkBytes));
}

__global__ void empty_kernel() {}

constexpr std::array<ReadVariant, 8> kVariants = {{
    {"vector loads, 256 threads x 4", vector_read<256, 4>},
    {"vector loads, 256 threads x 8", vector_read<256, 8>},
    {"vector loads, 512 threads x 4", vector_read<512, 4>},
    {"vector loads, 512 threads x 8", vector_read<512, 8>},
    {"bulk copies, 6 x 32 KiB a multiprocessor", bulk_read<32768, 6, 1>},
    {"bulk copies, 12 x 16 KiB a multiprocessor", bulk_read<16384, 12, 1>},
    {"bulk copies, 2 x 6 x 16 KiB a multiprocessor", bulk_read<16384, 6, 2>},
    {"bulk copies, 2 x 8 x 8 KiB a multiprocessor", bulk_read<8192, 8, 2>},
}};

}  // namespace

std::span<const ReadVariant> read_variants() { return kVariants; }

void launch_empty_kernel(cudaStream_t stream) { empty_kernel<<<1, 32, 0, stream>>>(); }

}  // namespace unweight::bench
