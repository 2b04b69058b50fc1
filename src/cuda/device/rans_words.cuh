// SPDX-License-Identifier: Apache-2.0
//
// The words of a block on their way to a warp: a ring in shared memory that asynchronous copies fill ahead of use.
//
//   global   ... 16-byte chunks that hold the block's words, from the first on ...
//                      | 512 bytes a refill, a chunk a lane
//   shared   [ring of 2 KiB]   position --->            filled --->
//
// Places count bytes from the chunk with the first word. At most 64 bytes are taken a step, 256 between two calls of
// refill(). A refill is asked for as soon as there is room, so when it is, more than 1,024 bytes are still ahead: it is
// not needed before the third call after that, and only then is it waited for. That is more time than memory takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda/device/tile_decode.cuh>
#include <cuda/ptx/copy.cuh>
#include <cuda/ptx/shared.cuh>
#include <format/distribution_layout.hpp>

namespace unweight::device {

class WordRing {
 public:
  static constexpr std::uint32_t kBytes = 2048;
  static constexpr std::uint32_t kRefillBytes = kLanes * 16;
  static constexpr std::uint32_t kGroupBytes = 4 * kLanes * 2;  ///< what four steps can take

  /// @param ring   address of kBytes of the warp's shared memory, a multiple of kBytes
  /// @param words  the block's first word, in global memory
  /// @param end    end of the block. What lies from the 16-byte boundary before `words` to the one after `end` is read
  __device__ WordRing(std::uint32_t ring, const std::byte* words, const std::byte* end, std::uint32_t lane)
      : ring_(ring), lane_(lane) {
    const auto offset = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(words) % 16);
    begin_ = words - offset;
    position_ = offset;
    end_ = static_cast<std::uint32_t>(end - begin_);
    __syncwarp();  // all lanes are done with the block before
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = 0; i < kFirstRefills; ++i) request();
    ptx::wait_for_async_copies();
    __syncwarp();
  }

  /// To be called before a step, and again after at most four of them.
  __device__ void refill() {
    // What has been taken since the last call is left alone: other lanes may still be reading it.
    if (filled_ - position_ <= kBytes - kRefillBytes - kGroupBytes) request();
    ptx::commit_async_group();
    ptx::wait_for_async_groups<3>();
    __syncwarp();
  }

  /// The word that is `before` words behind the next one. Of a corrupt block, which may ask for more words than it has,
  /// any word of the ring.
  [[nodiscard]] __device__ std::uint32_t word(std::uint32_t before) const {
    return ptx::load_shared16(ring_ | ((position_ + 2 * before) & (kBytes - 1)));
  }

  __device__ void take(std::uint32_t words) { position_ += 2 * words; }

  /// Waits for what is still under way: the ring may be used for something else after that.
  __device__ void drain() {
    ptx::wait_for_async_copies();
    __syncwarp();
  }

  /// Whether all words have been taken: where their number is odd, a word of 0 is left. After drain().
  [[nodiscard]] __device__ bool at_end() const { return position_ == end_ || (position_ + 2 == end_ && word(0) == 0); }

 private:
  static constexpr std::uint32_t kFirstRefills = 3;

  /// The next 512 bytes, up to the chunk in which the block ends.
  __device__ void request() {
    const std::uint32_t at = filled_ + lane_ * 16;
    if (at < end_) ptx::copy_async16(ring_ | at % kBytes, begin_ + at);
    filled_ += kRefillBytes;
  }

  std::uint32_t ring_;
  const std::byte* begin_;
  std::uint32_t lane_;
  std::uint32_t position_ = 0;  ///< of the next word
  std::uint32_t filled_ = 0;    ///< requested up to here
  std::uint32_t end_ = 0;       ///< of the block
};

}  // namespace unweight::device
