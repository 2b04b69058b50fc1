// SPDX-License-Identifier: Apache-2.0
//
// Which work a block of kernels/sm90_small_batch.cuh does, and in what order.
//
// The first `whole_items` items go round: block b takes b, b + blocks, ... The rest, fewer than would fill a round, are
// split along K: their stages, one item's after the other's, are dealt out to the blocks in equal, contiguous ranges.
// So a block's range may begin within an item and end within another:
//
//          | item 7                  | item 8                  | item 9                  |
//    ... block 2     | block 3           | block 4           | block 5           | block 6 ...
//
// The block that has an item's last stages finishes it: it adds the partial sums of the blocks before it, in their
// order. A block works on what another will finish first, on what it finishes itself with others' help last. So it
// waits only for blocks of a lower number, which began before it, and these have written long ago.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>

namespace unweight::sm90 {

/// How the work is dealt out, for all blocks. Made by the host: divisions are slow on the device.
struct SmallBatchDeal {
  std::uint32_t items, whole_items, steps, blocks;
  std::uint32_t rounds, longer_rounds;  ///< items of a block in the rounds; the first so many blocks have one more
  std::uint32_t share, larger_shares;   ///< stages of a block's range; the first so many blocks have one more

  constexpr SmallBatchDeal() = default;

  /// Splits, if at all, where that saves the blocks with most work a stage.
  constexpr SmallBatchDeal(std::uint32_t items_in, std::uint32_t steps_in, std::uint32_t multiprocessors, bool split)
      : items(items_in), whole_items(items_in), steps(steps_in), blocks(multiprocessors) {
    const std::uint64_t rest = items % blocks, stages = rest * steps;
    if (split && rest != 0 && (stages + blocks - 1) / blocks < steps) {
      whole_items = items - static_cast<std::uint32_t>(rest);
      share = static_cast<std::uint32_t>(stages / blocks);
      larger_shares = static_cast<std::uint32_t>(stages % blocks);
    } else {
      blocks = items < blocks ? items : blocks;
    }
    rounds = whole_items / blocks;
    longer_rounds = whole_items % blocks;
  }

  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr bool splits() const { return whole_items < items; }

  /// Of the block that has most.
  [[nodiscard]] constexpr std::uint64_t stages() const {
    return std::uint64_t{steps} * (rounds + (longer_rounds != 0 ? 1 : 0)) + share + (larger_shares != 0 ? 1 : 0);
  }

  /// First stage of a block's range, of those of all split items; the range after the last begins at their end.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t range_begin(std::uint32_t block) const {
    return block * share + (block < larger_shares ? block : larger_shares);
  }
};

/// Stages `begin` to `end` - 1 of an item.
struct SmallBatchSegment {
  std::uint32_t item, begin, end;  ///< none when begin == end
  std::uint32_t first_helper;      ///< blocks first_helper to the block's own - 1 have the stages before `begin`

  [[nodiscard]] UNWEIGHT_HOST_DEVICE bool exists() const { return begin != end; }
};

/// One block's.
class SmallBatchSchedule {
 public:
  UNWEIGHT_HOST_DEVICE SmallBatchSchedule(const SmallBatchDeal& deal, std::uint32_t block)
      : block_(block), blocks_(deal.blocks), steps_(deal.steps) {
    const std::uint32_t rounds = deal.rounds + (block < deal.longer_rounds ? 1 : 0);
    first_round_ = last_ = rounds;
    if (!deal.splits()) {
      first_round_ = 0;
      return;
    }
    const std::uint32_t begin = deal.range_begin(block), end = deal.range_begin(block + 1);
    const std::uint32_t first = begin / steps_, last = end / steps_;  // items, from the first split one on
    const std::uint32_t begin_step = begin - first * steps_, end_step = end - last * steps_;
    if (end_step != 0 && end > begin) {
      begun_ = {deal.whole_items + last, first == last ? begin_step : 0, end_step, block};
    }
    if (begin_step != 0 && last > first) {
      std::uint32_t helper = block;
      while (deal.range_begin(helper) > first * steps_) --helper;
      ended_ = {deal.whole_items + first, begin_step, steps_, helper};
    }
    // A share is less than an item, so no range has a whole one.
    first_round_ = begun_.exists() ? 1 : 0;
    last_ = first_round_ + rounds;
  }

  /// The beginning of an item that a later block ends, and the end of one that earlier blocks began; where there are.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE const SmallBatchSegment& begun() const { return begun_; }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE const SmallBatchSegment& ended() const { return ended_; }

  /// The block's segments in the order of work, n = 0, 1, ...
  [[nodiscard]] UNWEIGHT_HOST_DEVICE SmallBatchSegment segment(std::uint32_t n) const {
    SmallBatchSegment segment{block_ + (n - first_round_) * blocks_, 0, steps_, block_};
    if (n < first_round_) segment = begun_;
    if (n == last_) segment = ended_;
    if (n > last_) segment.end = segment.begin;
    return segment;
  }

 private:
  std::uint32_t block_, blocks_, steps_;
  std::uint32_t first_round_, last_;  ///< segments first_round_ .. last_ - 1 are the rounds' items
  SmallBatchSegment begun_{}, ended_{};
};

}  // namespace unweight::sm90
