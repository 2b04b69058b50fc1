// SPDX-License-Identifier: Apache-2.0
//
// How often each exponent occurs in a row, counted by a warp. Every lane has counters of its own, a byte each, so that
// nobody waits for anybody: in shared memory, four exponents a word, the lanes' words side by side.
//
//   word w * 32 + l: lane l's counters of exponents 4 w .. 4 w + 3       no bank conflicts between lanes
//
// They are added up before one can overflow, when lane l takes the sums of exponents 8 l .. 8 l + 7.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>
#include <cuda/device/tile_decode.cuh>
#include <cuda/device/transcode_state.cuh>
#include <cuda/ptx/registers.cuh>

namespace unweight::device {

/// A warp's counters; all 0 between rows.
struct LaneCounters {
  static constexpr std::uint32_t kWords = kExponents / 4;
  alignas(16) std::uint32_t words[kWords * kLanes];
};

inline constexpr std::uint32_t kLaneExponents = kExponents / kLanes;

/// The counts of a lane's exponents 8 l .. 8 l + 7.
struct LaneCounts {
  std::uint32_t of[kLaneExponents];
};

class RowCounter {
 public:
  __device__ RowCounter(LaneCounters& counters, std::uint32_t lane)
      : words_(counters.words),
        bytes_(reinterpret_cast<std::uint8_t*>(counters.words)),
        lane_(lane),
        lane_bytes_(4 * lane) {
    ptx::keep(lane_bytes_);  // what is known of its bits only makes the compiler mask them again
  }

  /// Once, before the first row.
  __device__ void clear() {
    for (std::uint32_t i = 0; i < LaneCounters::kWords; ++i) words_[i * kLanes + lane_] = 0;
    __syncwarp();
  }

  /// Counts a row of `cols` values, aligned to 2 bytes.
  /// @param by_vectors  the row is aligned to 16 bytes, and `cols` a multiple of 8
  __device__ LaneCounts count(const std::uint16_t* row, std::uint64_t cols, bool by_vectors) {
    LaneCounts sums{};
    std::uint32_t counted = 0;  // by a lane, since the sums were taken
    if (by_vectors) {
      const auto* vectors = reinterpret_cast<const uint4*>(row);
      const std::uint64_t count = cols / 8;
      Vectors next = load(vectors, 0, count);
      for (std::uint64_t first = 0; first < count; first += Vectors::kCount * kLanes) {
        const Vectors now = next;
        next = load(vectors, first + Vectors::kCount * kLanes, count);  // on their way while these are counted
        if (counted + Vectors::kValues > kMostCounted) counted = add_up(sums);
        counted += Vectors::kValues;
        UNWEIGHT_UNROLL
        for (std::uint32_t k = 0; k < Vectors::kCount; ++k) {
          if (first + k * kLanes + lane_ < count) count_vector(now.of[k]);
        }
      }
    } else {
      for (std::uint64_t i = 0; i < cols; i += kLanes) {
        if (counted + 1 > kMostCounted) counted = add_up(sums);
        ++counted;
        if (i + lane_ < cols) count_one(row[i + lane_]);
      }
    }
    add_up(sums);
    return sums;
  }

 private:
  static constexpr std::uint32_t kMostCounted = 255;

  /// What a lane loads ahead of a row.
  struct Vectors {
    static constexpr std::uint32_t kCount = 2;
    static constexpr std::uint32_t kValues = 8 * kCount;
    uint4 of[kCount];
  };
  [[nodiscard]] __device__ Vectors load(const uint4* vectors, std::uint64_t first, std::uint64_t count) const {
    Vectors loaded{};
    UNWEIGHT_UNROLL
    for (std::uint32_t k = 0; k < Vectors::kCount; ++k) {
      const std::uint64_t i = first + k * kLanes + lane_;
      if (i < count) loaded.of[k] = __ldg(vectors + i);
    }
    return loaded;
  }

  /// The place of the lane's counter of the exponent in bits 0..7 of `shifted`; bits above do not count.
  [[nodiscard]] __device__ std::uint32_t place(std::uint32_t shifted) const {
    return ((shifted & 0xfc) << 5) + ((shifted & 3) | lane_bytes_);
  }
  __device__ void count_one(std::uint32_t value) { ++bytes_[place(value >> 7)]; }
  /// Both counters are read before one is written: half as many times the latency of shared memory.
  __device__ void count_pair(std::uint32_t pair) {
    const std::uint32_t first = place(pair >> 7), second = place(pair >> 23);
    const std::uint32_t first_count = bytes_[first], second_count = bytes_[second];
    bytes_[first] = static_cast<std::uint8_t>(first_count + 1);
    bytes_[second] = static_cast<std::uint8_t>(second_count + (first == second ? 2 : 1));
  }
  __device__ void count_vector(const uint4& vector) {
    count_pair(vector.x);
    count_pair(vector.y);
    count_pair(vector.z);
    count_pair(vector.w);
  }

  static __device__ std::uint32_t even_bytes(std::uint32_t word) { return word & 0x00ff00ffU; }
  static __device__ std::uint32_t odd_bytes(std::uint32_t word) { return byte_permute(word, 0, 0x4341); }

  /// Adds the counters to the sums and clears them.
  __device__ std::uint32_t add_up(LaneCounts& sums) {
    __syncwarp();
    UNWEIGHT_UNROLL
    for (std::uint32_t half = 0; half < 2; ++half) {
      auto* const vectors = reinterpret_cast<uint4*>(words_ + (2 * lane_ + half) * kLanes);
      std::uint32_t even = 0, odd = 0;  // 16-bit sums of at most 32 * 255
      UNWEIGHT_UNROLL_4
      for (std::uint32_t i = 0; i < kLanes / 4; ++i) {
        uint4& four = vectors[(i + lane_) % (kLanes / 4)];
        even += even_bytes(four.x) + even_bytes(four.y) + even_bytes(four.z) + even_bytes(four.w);
        odd += odd_bytes(four.x) + odd_bytes(four.y) + odd_bytes(four.z) + odd_bytes(four.w);
        four = make_uint4(0, 0, 0, 0);
      }
      sums.of[4 * half] += even & 0xffff;
      sums.of[4 * half + 1] += odd & 0xffff;
      sums.of[4 * half + 2] += even >> 16;
      sums.of[4 * half + 3] += odd >> 16;
    }
    __syncwarp();
    return 0;
  }

  std::uint32_t* words_;
  std::uint8_t* bytes_;
  std::uint32_t lane_;
  std::uint32_t lane_bytes_;
};

}  // namespace unweight::device
