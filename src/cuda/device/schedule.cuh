// SPDX-License-Identifier: Apache-2.0
//
// Which work a block of kernels/sm90_small_batch.cuh does, and in what order.
//
// Whole items go round: block b takes b, b + blocks, ... What does not fill a round can be split along K:
//
//   - Few items, half as many as blocks or fewer: each has `parts` blocks of its own, a cluster, which divide K into
//     equal parts and add up their sums together.
//   - Otherwise the stages of the items left over, one item's after the other's, are dealt out to all blocks in equal,
//     contiguous ranges. So a block's range may begin within an item and end within another:
//
//          | item 7                  | item 8                  | item 9                  |
//    ... block 2     | block 3           | block 4           | block 5           | block 6 ...
//
//     The block that has an item's last stages finishes it. A block works first on what another will finish, then on
//     its whole items, last on what it finishes itself.
//
// There a block waits only for blocks of a lower number, which began before it, and most often they have written long
// ago. The blocks of a cluster wait for one another; the hardware runs all of them at a time.
#pragma once

#include <cstdint>
#include <cuda/device/bit_ops.cuh>

namespace unweight::sm90 {

/// How many clusters run at a time, by how many parts an item has in them: a block each, or a pair of blocks.
/// Multiprocessors come in groups of some 16, of which a cluster has one, so that some are left over.
struct ClusterRoom {
  static constexpr std::uint32_t kMostParts = 4;  ///< a cluster may have 8: not tried
  std::uint32_t clusters[kMostParts + 1] = {};    ///< 0: items are not divided into so many

  /// Of blocks. Two multiprocessors always share what clusters of two need.
  static constexpr ClusterRoom for_blocks(std::uint32_t blocks) {
    return {{0, 0, blocks / 2, (blocks - blocks / 8) / 3, (blocks - blocks / 8) / 4}};
  }

  /// Of pairs. An H200 runs 30, 17 and 15 clusters of 4, 6 and 8 blocks on its 66 pairs of multiprocessors; on others
  /// other multiprocessors are missing.
  static constexpr ClusterRoom for_pairs(std::uint32_t pairs) {
    return {{0, 0, pairs * 28 / 66, pairs * 16 / 66, pairs * 14 / 66}};
  }
};

/// How the work is dealt out, for all blocks. Made by the host: divisions are slow on the device.
struct Deal {
  std::uint32_t items = 0, whole_items = 0, steps = 0, blocks = 0;
  std::uint32_t rounds = 0, longer_rounds = 0;  ///< whole items of a block; the first so many blocks have one more
  std::uint32_t parts = 1;                      ///< blocks of an item, where every item has blocks of its own
  std::uint32_t share = 0, larger_shares = 0;   ///< stages of a block's range, or of a part; so many have one more

  static constexpr std::uint32_t kMostParts = ClusterRoom::kMostParts;

  constexpr Deal() = default;

  /// Splits, if at all, where that saves the blocks with most work some stages.
  constexpr Deal(std::uint32_t items_in, std::uint32_t steps_in, std::uint32_t multiprocessors, bool split,
                 const ClusterRoom& room)
      : items(items_in), whole_items(items_in), steps(steps_in), blocks(multiprocessors) {
    const std::uint64_t rest = items % blocks, stages = rest * steps;
    if (split) parts = parts_that_fit(room);
    if (parts > 1) {
      share = steps / parts;
      larger_shares = steps % parts;
      whole_items = 0;
      blocks = items * parts;
    } else if (split && rest != 0 && (stages + blocks - 1) / blocks < steps) {
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
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr bool by_clusters() const { return parts > 1; }

  /// Whole items of the block that has most.
  [[nodiscard]] constexpr std::uint32_t most_rounds() const { return rounds + (longer_rounds != 0 ? 1 : 0); }

  /// Of the block that has most.
  [[nodiscard]] constexpr std::uint64_t stages() const {
    return std::uint64_t{steps} * most_rounds() + share + (larger_shares != 0 ? 1 : 0);
  }

  /// Where a block's range begins among the stages of all items left over, or a part among an item's.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE constexpr std::uint32_t range_begin(std::uint32_t number) const {
    return number * share + (number < larger_shares ? number : larger_shares);
  }

 private:
  [[nodiscard]] constexpr std::uint32_t parts_that_fit(const ClusterRoom& room) const {
    std::uint32_t most = 1;
    for (std::uint32_t n = 2; n <= kMostParts && n <= steps; ++n) {
      if (items <= room.clusters[n]) most = n;
    }
    return most;
  }
};

/// Stages `begin` to `end` - 1 of an item.
struct Segment {
  std::uint32_t item, begin, end;  ///< none when begin == end
  std::uint32_t first_peer;        ///< blocks first_peer to the block's own - 1 have the stages before `begin`; in a
                                   ///< cluster the block itself

  [[nodiscard]] UNWEIGHT_HOST_DEVICE bool exists() const { return begin != end; }
};

/// One block's.
class Schedule {
 public:
  UNWEIGHT_HOST_DEVICE Schedule(const Deal& deal, std::uint32_t block)
      : block_(block), blocks_(deal.blocks), steps_(deal.steps) {
    const std::uint32_t rounds = deal.rounds + (block < deal.longer_rounds ? 1 : 0);
    if (deal.by_clusters()) {
      const std::uint32_t item = block / deal.parts, part = block - item * deal.parts;
      begun_ = {item, deal.range_begin(part), deal.range_begin(part + 1), block};
    } else if (deal.splits()) {
      const std::uint32_t begin = deal.range_begin(block), end = deal.range_begin(block + 1);
      const std::uint32_t first = begin / steps_, last = end / steps_;  // items, from the first split one on
      const std::uint32_t begin_step = begin - first * steps_, end_step = end - last * steps_;
      if (end_step != 0 && end > begin) {
        begun_ = {deal.whole_items + last, first == last ? begin_step : 0, end_step, block};
      }
      if (begin_step != 0 && last > first) {
        std::uint32_t peer = block;
        while (deal.range_begin(peer) > first * steps_) --peer;
        ended_ = {deal.whole_items + first, begin_step, steps_, peer};
      }
      // A share is less than an item, so no range has a whole one.
    }
    first_round_ = begun_.exists() ? 1 : 0;
    last_ = first_round_ + rounds;
  }

  /// The first segment, without the rest of the schedule where nothing is split.
  [[nodiscard]] static UNWEIGHT_HOST_DEVICE Segment first_segment(const Deal& deal, std::uint32_t block) {
    if (!deal.splits()) return {block, 0, deal.steps, block};
    return Schedule(deal, block).segment(0);
  }

  /// The beginning or middle of an item that a later block ends, and the end of one that earlier blocks began; where
  /// there are. Of clusters only the first, which is a block's part.
  [[nodiscard]] UNWEIGHT_HOST_DEVICE const Segment& begun() const { return begun_; }
  [[nodiscard]] UNWEIGHT_HOST_DEVICE const Segment& ended() const { return ended_; }

  /// The block's segments in the order of work, n = 0, 1, ...
  [[nodiscard]] UNWEIGHT_HOST_DEVICE Segment segment(std::uint32_t n) const {
    Segment segment{block_ + (n - first_round_) * blocks_, 0, steps_, block_};
    if (n < first_round_) segment = begun_;
    if (n == last_) segment = ended_;
    if (n > last_) segment.end = segment.begin;
    return segment;
  }

 private:
  std::uint32_t block_, blocks_, steps_;
  std::uint32_t first_round_ = 0, last_ = 0;  ///< segments first_round_ .. last_ - 1 are the rounds' items
  Segment begun_{}, ended_{};
};

}  // namespace unweight::sm90
