// SPDX-License-Identifier: Apache-2.0
//
// How the small-batch kernel's work is dealt out: every stage to one block, and blocks that wait only for earlier ones
// or for their cluster.
#include <algorithm>
#include <cstdint>
#include <cuda/device/schedule.cuh>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace unweight::test {
namespace {

using sm90::ClusterRoom, sm90::Deal, sm90::Schedule, sm90::Segment;

/// Who works on what, and who waits for whom.
struct Ledger {
  explicit Ledger(const Deal& deal)
      : owners(std::uint64_t{deal.items} * deal.steps, kNobody), told(deal.blocks), asked(deal.blocks) {}

  static constexpr std::uint32_t kNobody = 0xffffffff;
  std::vector<std::uint32_t> owners;  ///< of the stages, item after item
  std::vector<int> told, asked;       ///< times that a block leaves partial sums, and that one is waited for
};

void enter(const Deal& deal, std::uint32_t block, Ledger& ledger) {
  const Schedule schedule(deal, block);
  std::uint64_t stages = 0;
  for (std::uint32_t n = 0;; ++n) {
    const Segment segment = schedule.segment(n);
    if (n == 0) {
      const Segment first = Schedule::first_segment(deal, block);
      ASSERT_EQ(first.exists(), segment.exists());
      ASSERT_TRUE(!first.exists() || (first.item == segment.item && first.begin == segment.begin &&
                                      first.end == segment.end && first.first_peer == segment.first_peer));
    }
    if (!segment.exists()) break;
    ASSERT_LT(segment.item, deal.items);
    ASSERT_LT(segment.begin, segment.end);
    ASSERT_LE(segment.end, deal.steps);
    stages += segment.end - segment.begin;
    for (std::uint32_t step = segment.begin; step < segment.end; ++step) {
      auto& owner = ledger.owners[std::uint64_t{segment.item} * deal.steps + step];
      ASSERT_EQ(owner, Ledger::kNobody);
      owner = block;
    }
    if (deal.by_clusters()) {
      ASSERT_EQ(n, 0U) << "a part, and nothing else";
      ASSERT_EQ(segment.item, block / deal.parts);
      ASSERT_EQ(segment.first_peer, block);
    } else if (segment.end < deal.steps) {
      ASSERT_EQ(n, 0U) << "what others wait for comes first";
      ASSERT_EQ(schedule.begun().item, segment.item);
      ++ledger.told[block];
    } else if (segment.begin > 0) {
      ASSERT_EQ(schedule.ended().item, segment.item);
      ASSERT_FALSE(schedule.segment(n + 1).exists()) << "what waits for others comes last";
      ASSERT_LT(segment.first_peer, block);
      for (std::uint32_t peer = segment.first_peer; peer < block; ++peer) ++ledger.asked[peer];
    } else {
      ASSERT_EQ(segment.first_peer, block);
    }
  }
  EXPECT_LE(stages, deal.stages());
}

TEST(Schedule, EveryStageOnceAndSumsInOrder) {
  for (const std::uint32_t multiprocessors : {1U, 2U, 3U, 7U, 12U, 132U}) {
    for (std::uint32_t items = 1; items <= 300; items += items < 20 ? 1 : 13) {
      for (std::uint32_t steps = 1; steps <= 70; steps += steps < 12 ? 1 : 9) {
        for (const std::uint32_t kind : {0U, 1U, 2U, 3U}) {  // not split; split without clusters, with blocks', pairs'
          const ClusterRoom rooms[] = {
              {}, {}, ClusterRoom::for_blocks(multiprocessors), ClusterRoom::for_pairs(multiprocessors)};
          SCOPED_TRACE(std::to_string(multiprocessors) + " multiprocessors, " + std::to_string(items) + " items of " +
                       std::to_string(steps) + " stages, kind " + std::to_string(kind));
          const Deal deal(items, steps, multiprocessors, kind != 0, rooms[kind]);
          ASSERT_GE(deal.blocks, 1U);
          ASSERT_LE(deal.blocks, multiprocessors);
          Ledger ledger(deal);
          for (std::uint32_t block = 0; block < deal.blocks; ++block) enter(deal, block, ledger);
          ASSERT_EQ(std::count(ledger.owners.begin(), ledger.owners.end(), Ledger::kNobody), 0);
          ASSERT_EQ(ledger.told, ledger.asked);
          for (std::size_t i = 0; i < ledger.owners.size(); ++i) {
            ASSERT_TRUE(i % steps == 0 || ledger.owners[i - 1] <= ledger.owners[i]) << "blocks in the order of K";
          }
          const Deal whole(items, steps, multiprocessors, false, {});
          ASSERT_LE(deal.stages(), whole.stages());
        }
      }
    }
  }
}

Deal dealt(std::uint32_t items, std::uint32_t steps, std::uint32_t blocks, bool split) {
  return {items, steps, blocks, split, ClusterRoom::for_blocks(blocks)};
}

TEST(Schedule, SplitsWhatLeavesBlocksIdle) {
  EXPECT_FALSE(dealt(128, 8, 132, true).splits());   // nothing to gain
  EXPECT_EQ(dealt(64, 16, 132, true).stages(), 8U);  // clusters of two, instead of 16 stages
  EXPECT_EQ(dealt(64, 16, 132, true).parts, 2U);
  EXPECT_EQ(dealt(29, 16, 132, true).parts, 4U);
  EXPECT_EQ(dealt(33, 16, 132, true).parts, 3U);  // 132 multiprocessors need not have 33 clusters of four
  EXPECT_EQ(dealt(448, 16, 132, true).stages(), 55U);
  EXPECT_EQ(dealt(448, 16, 132, false).stages(), 64U);
  const ClusterRoom pairs = ClusterRoom::for_pairs(66);
  EXPECT_EQ(Deal(16, 32, 66, true, pairs).parts, 3U);      // clusters of 8 multiprocessors do not all fit
  EXPECT_EQ(Deal(32, 32, 66, true, pairs).stages(), 16U);  // nor do clusters of 4: ranges
}

}  // namespace
}  // namespace unweight::test
