// SPDX-License-Identifier: Apache-2.0
//
// The words of CUDA C++ that our kernels use, for a C++ compiler. emulator.hpp says how they run.
#pragma once

#include "emulation/emulator.hpp"
#include <algorithm>
#include <cstdint>
#include <cstring>

// NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): these are the device language's names.
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // one block runs at a time

struct Dim3 {
  std::uint32_t x, y, z;
};
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) uint2 {
  std::uint32_t x, y;
};
struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(std::uint32_t x, std::uint32_t y) { return {x, y}; }
inline uint4 make_uint4(std::uint32_t x, std::uint32_t y, std::uint32_t z, std::uint32_t w) { return {x, y, z, w}; }

template <class T>
T __ldg(const T* at) {
  return *at;
}

inline std::uint32_t min(std::uint32_t a, std::uint32_t b) { return std::min(a, b); }
inline std::uint32_t max(std::uint32_t a, std::uint32_t b) { return std::max(a, b); }

inline void __syncthreads() { unweight::emulation::sync_block(); }
inline void __syncwarp() {
  const std::uint8_t nothing = 0;
  (void)unweight::emulation::exchange(&nothing, sizeof nothing);
}

template <class T>  // std::uint32_t or float
T __shfl_sync(std::uint32_t, T value, std::uint32_t lane) {
  const std::byte* all = unweight::emulation::exchange(&value, sizeof value);
  T result;
  std::memcpy(&result, all + lane % unweight::emulation::kWarpLanes * sizeof value, sizeof result);
  return result;
}

template <class T>
T __shfl_down_sync(std::uint32_t mask, T value, std::uint32_t distance) {
  const std::uint32_t lane = threadIdx.x % unweight::emulation::kWarpLanes;
  return __shfl_sync(mask, value, lane + distance < unweight::emulation::kWarpLanes ? lane + distance : lane);
}

template <class T>
T __shfl_up_sync(std::uint32_t mask, T value, std::uint32_t distance) {
  const std::uint32_t lane = threadIdx.x % unweight::emulation::kWarpLanes;
  return __shfl_sync(mask, value, lane < distance ? lane : lane - distance);
}

template <class T>
T __shfl_xor_sync(std::uint32_t mask, T value, std::uint32_t lanes) {
  return __shfl_sync(mask, value, threadIdx.x % unweight::emulation::kWarpLanes ^ lanes);
}

namespace unweight::emulation {
/// Joins all lanes' values, one after the other.
template <class Join>
std::uint32_t reduce(std::uint32_t value, const Join& join) {
  const std::byte* all = exchange(&value, sizeof value);
  std::uint32_t result = 0;
  for (std::uint32_t lane = 0; lane < kWarpLanes; ++lane) {
    std::uint32_t other;
    std::memcpy(&other, all + lane * sizeof other, sizeof other);
    result = join(result, other);
  }
  return result;
}
}  // namespace unweight::emulation

inline std::uint32_t __reduce_max_sync(std::uint32_t, std::uint32_t value) {
  return unweight::emulation::reduce(value, [](std::uint32_t a, std::uint32_t b) { return std::max(a, b); });
}
inline std::uint32_t __reduce_add_sync(std::uint32_t, std::uint32_t value) {
  return unweight::emulation::reduce(value, [](std::uint32_t a, std::uint32_t b) { return a + b; });
}

inline std::uint32_t __ballot_sync(std::uint32_t, bool value) {
  const std::byte* all = unweight::emulation::exchange(&value, sizeof value);
  std::uint32_t result = 0;
  for (std::uint32_t lane = 0; lane < unweight::emulation::kWarpLanes; ++lane) {
    result |= std::uint32_t{all[lane] != std::byte{0}} << lane;
  }
  return result;
}

inline bool __any_sync(std::uint32_t mask, bool value) { return __ballot_sync(mask, value) != 0; }

inline bool __all_sync(std::uint32_t mask, bool value) { return ~__ballot_sync(mask, value) == 0; }

inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __popc(std::uint32_t value) { return __builtin_popcount(value); }

template <class T>
T atomicAdd(T* at, T value) {
  const T old = *at;
  *at = old + value;
  return old;
}

template <class T>
T atomicMax(T* at, T value) {
  const T old = *at;
  *at = std::max(old, value);
  return old;
}

template <class T>
T atomicCAS(T* at, T expected, T value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

inline std::uint32_t atomicInc(std::uint32_t* counter, std::uint32_t limit) {
  const std::uint32_t old = *counter;
  *counter = old >= limit ? 0 : old + 1;
  return old;
}
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)
