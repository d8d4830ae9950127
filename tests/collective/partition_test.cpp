// SPDX-License-Identifier: Apache-2.0
//
// Who owns what, how it is cut into segments, and what schedules promise.
#include "collective/partition.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "collective/algorithms.hpp"
#include "support/rig.hpp"

namespace terse::test {
namespace {

TEST(Partition, ChunksAreWholeBlocksDealtEvenly) {
  for (const std::size_t block : {1u, 8u, 64u, 2048u}) {
    for (const int ranks : {1, 2, 3, 4, 5, 7, 8, 64, 1000}) {
      for (const std::size_t count : {std::size_t{0}, std::size_t{1}, block - 1, block, block + 1, 7 * block,
                                      64 * block + 3, std::size_t{99991}}) {
        SCOPED_TRACE(std::to_string(count) + " in blocks of " + std::to_string(block) + " to " +
                     std::to_string(ranks));
        const auto chunks = deal_chunks(count, block, ranks);
        ASSERT_EQ(chunks.size(), static_cast<std::size_t>(ranks));
        std::size_t at = 0;
        std::size_t fewest = ~std::size_t{0};
        std::size_t most = 0;
        std::size_t before = ~std::size_t{0};
        for (const Range& chunk : chunks) {
          ASSERT_EQ(chunk.offset, at);
          ASSERT_TRUE(chunk.offset % block == 0 || chunk.count == 0);
          at = chunk.end();
          const std::size_t blocks = (chunk.count + block - 1) / block;
          fewest = std::min(fewest, blocks);
          most = std::max(most, blocks);
          ASSERT_LE(blocks, before) << "the first ranks hold one more, not the last";
          before = blocks;
        }
        ASSERT_EQ(at, count);
        ASSERT_LE(most - fewest, 1u);
      }
    }
  }
}

TEST(Partition, CountsBeyondThirtyTwoBits) {
  const std::size_t count = (std::size_t{1} << 33) + 17;
  const auto chunks = deal_chunks(count, 2048, 3);
  EXPECT_EQ(chunks.back().end(), count);
  EXPECT_EQ(chunks[1].offset, chunks[0].count);
  EXPECT_GT(chunks[2].count, std::size_t{1} << 31);
}

TEST(Partition, SegmentsHoldOneRunOfEveryChunk) {
  for (const int ranks : {1, 3, 5}) {
    for (const std::size_t count : {0u, 1u, 64u, 1000u, 4000u}) {
      const auto chunks = deal_chunks(count, 8, ranks);
      for (const std::size_t piece : {8u, 40u, 100000u}) {
        const auto segments = cut_segments(chunks, piece);
        std::vector<std::size_t> next;
        for (const Range& chunk : chunks) next.push_back(chunk.offset);
        for (const auto& segment : segments) {
          ASSERT_FALSE(segment.empty());
          std::set<int> owners;
          for (const Piece& p : segment) {
            ASSERT_TRUE(owners.insert(p.owner).second) << "two pieces of one owner";
            std::size_t& at = next[static_cast<std::size_t>(p.owner)];
            ASSERT_EQ(p.range.offset, at);
            ASSERT_GT(p.range.count, 0u);
            ASSERT_LE(p.range.count, piece);
            at = p.range.end();
          }
        }
        for (std::size_t r = 0; r < chunks.size(); ++r) ASSERT_EQ(next[r], chunks[r].end());
      }
    }
  }
}

/// What holds for the schedule of every algorithm, on all ranks together.
TEST(Schedules, AreSoundOnAllRanks) {
  for (const Algorithm& algorithm : algorithm_table()) {
    for (const int ranks : {1, 2, 3, 8}) {
      for (const std::size_t count : {0u, 1u, 200u, 3000u}) {
        Rig rig({.ranks = ranks,
                 .count = count,
                 .codec = algorithm.padded                               ? "onebit:deepspeed"
                          : algorithm.codecs == Algorithm::For::summable ? "sum8:block=64"
                                                                         : "onebit:block=64",
                 .algorithm = std::string(algorithm.name),
                 .segment_bytes = 2000});
        SCOPED_TRACE(text_of(rig.setting()));
        std::map<std::pair<int, int>, std::vector<std::uint8_t>> sent;      // (from, to): channels in order
        std::map<std::pair<int, int>, std::vector<std::uint8_t>> received;  // as the receiver posts them
        for (int rank = 0; rank < ranks; ++rank) {
          const Schedule schedule = algorithm.build(rig.problem(rank));
          std::vector<std::uint32_t> waits(schedule.size());
          for (std::uint32_t i = 0; i < schedule.size(); ++i) {
            waits[i] = schedule.prerequisites(i);
            for (const std::uint32_t next : schedule.successors(i)) {
              ASSERT_GT(next, i) << "steps stand in an order in which they can be done";
              ASSERT_LT(next, schedule.size());
            }
            const Step& step = schedule[i];
            if (step.verb == Verb::send) sent[{rank, step.peer}].push_back(step.in.channel);
            if (step.verb == Verb::receive) received[{step.peer, rank}].push_back(step.out.channel);
            for (const Operand* operand : {&step.in, &step.out, &step.beside}) {
              if (operand->space != Space::message && operand->space != Space::scratch) continue;
              ASSERT_TRUE(operand->channel < Schedule::kChannels || operand->channel == kUnsent);
              ASSERT_LE(operand->slot + operand->slots, schedule.slots().size());
            }
          }
          std::vector<std::uint32_t> counted(schedule.size());
          for (std::uint32_t i = 0; i < schedule.size(); ++i) {
            for (const std::uint32_t next : schedule.successors(i)) ++counted[next];
          }
          ASSERT_EQ(counted, waits);
          // outputs tile the tensor
          if (algorithm.compresses) {
            std::size_t at = 0;
            for (const Range& piece : rig.pieces()) {
              ASSERT_EQ(piece.offset, at);
              at = piece.end();
            }
            ASSERT_EQ(at, padded_count(algorithm, count, ranks));
          }
        }
        for (auto* list : {&sent, &received}) {
          for (auto& [pair, channels] : *list) std::sort(channels.begin(), channels.end());
        }
        ASSERT_EQ(sent, received) << "what is sent is not what is received";
      }
    }
  }
}

TEST(Algorithms, AreFoundByName) {
  for (const Algorithm& row : algorithm_table()) {
    EXPECT_EQ(&find_algorithm(row.name), &row);
    EXPECT_FALSE(row.summary.empty());
  }
  try {
    find_algorithm("two-phase");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    const std::string what = error.what();
    for (const Algorithm& row : algorithm_table()) EXPECT_NE(what.find(row.name), std::string::npos) << what;
    EXPECT_NE(what.find("two-phase"), std::string::npos) << what;
  }
}

}  // namespace
}  // namespace terse::test
