// SPDX-License-Identifier: Apache-2.0
//
// The words of a block on their way to a warp: a ring in shared memory that asynchronous copies fill ahead of use.
//
//   global   ... 16-byte chunks that hold the block's words, from the first on ...
//                      | 512 bytes a refill, a chunk a lane
//   shared   [ring of 2 KiB][its first 256 bytes once more]   next word --->            filled --->
//
// At most 64 bytes are taken a step, 256 between two calls of look_ahead(). Only there does the place of the next word
// go back to the ring's beginning: what up to four steps take beyond its end lies there again, so that no step masks a
// place.
//
// A refill is asked for as soon as there is room, so when it is, more than 900 bytes are still ahead. It is waited for
// when the next one is asked for: of a trained tensor some seven groups of four steps later, of a stream with a word
// for every value one or two, when more than 700 of those bytes are left. Other calls of refill() find no room and do
// nothing.
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
  static constexpr std::uint32_t kRing = 2048;
  static constexpr std::uint32_t kRefillBytes = kLanes * 16;
  static constexpr std::uint32_t kGroupBytes = 4 * kLanes * 2;  ///< what four steps can take
  static constexpr std::uint32_t kBytes = kRing + kGroupBytes;  ///< of shared memory

  /// Asks for the first words. Before they are used, wait() and refill() are to be called.
  /// @param ring   address of kBytes of the warp's shared memory, a multiple of 16
  /// @param words  the block's first word, in global memory
  /// @param end    end of the block. What lies from the 16-byte boundary before `words` to the one after `end` is read
  __device__ WordRing(std::uint32_t ring, const std::byte* words, const std::byte* end, std::uint32_t lane)
      : ring_(ring), lane_(lane) {
    const auto offset = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(words) % 16);
    begin_ = words - offset;
    next_ = ring + offset;
    end_ = static_cast<std::uint32_t>(end - begin_);
    __syncwarp();  // all lanes are done with the block before
    UNWEIGHT_NO_UNROLL
    for (std::uint32_t i = 0; i < kFirstRefills; ++i) request();
  }

  /// Waits for all that has been asked for.
  __device__ void wait() {
    ptx::wait_for_async_copies();
    __syncwarp();
  }

  /// To be called again after at most four steps. Finds out what refill() is to do, and takes the place of the next
  /// word back to the ring's beginning.
  __device__ void look_ahead() {
    if (next_ >= ring_ + kRing) next_ -= kRing;
    ahead_ = ahead();
  }

  /// To be called after each look_ahead(), at most a step later.
  __device__ void refill() {
    // What four steps have taken is left alone: other lanes may still be reading it.
    if (ahead_ <= kRing - kRefillBytes - kGroupBytes) {
      wait();
      request();
    }
  }

  /// Takes a step's words, one for each bit of two masks: of the lanes before this one, and of this and later ones.
  /// Returns the word behind those of the lanes before. Of a corrupt block, which may ask for more words than it has,
  /// any word of the ring. Two masks, because the count of all lanes' would be ready first and let the other one wait.
  __device__ std::uint32_t take(std::uint32_t before, std::uint32_t others) {
    const std::uint32_t mine = next_ + 2 * static_cast<std::uint32_t>(__popc(before));
    const std::uint32_t word = ptx::load_shared16(mine);
    next_ = mine + 2 * static_cast<std::uint32_t>(__popc(others));
    return word;
  }

  /// Whether all words have been taken: where their number is odd, a word of 0 is left. After wait().
  [[nodiscard]] __device__ bool at_end() const {
    const std::uint32_t at = filled_ - ahead();
    return at == end_ || (at + 2 == end_ && ptx::load_shared16(next_) == 0);
  }

 private:
  static constexpr std::uint32_t kFirstRefills = 3;

  /// Bytes that have been asked for and not been taken: fewer than the ring has.
  [[nodiscard]] __device__ std::uint32_t ahead() const { return (filled_ - (next_ - ring_)) % kRing; }

  /// The next 512 bytes, up to the chunk in which the block ends.
  __device__ void request() {
    const std::uint32_t from = filled_ + lane_ * 16, at = from % kRing;
    if (from < end_) {
      ptx::copy_async16(ring_ + at, begin_ + from);
      if (at < kGroupBytes) ptx::copy_async16(ring_ + kRing + at, begin_ + from);
    }
    filled_ += kRefillBytes;
    ahead_ += kRefillBytes;
  }

  std::uint32_t ring_;
  std::uint32_t lane_;
  const std::byte* begin_;    ///< the chunk with the first word
  std::uint32_t next_;        ///< address of the next word: at most kGroupBytes beyond the ring's end
  std::uint32_t filled_ = 0;  ///< bytes from `begin_` on that have been asked for
  std::uint32_t end_;         ///< of the block, likewise
  std::uint32_t ahead_ = 0;   ///< ahead() when look_ahead() was called, and what was asked for since
};

}  // namespace unweight::device
