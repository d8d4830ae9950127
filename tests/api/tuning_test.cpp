// SPDX-License-Identifier: Apache-2.0
//
// From which size on compression pays, by two trials' times.
#include "api/tuning.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace terse::test {
namespace {

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

TEST(BreakEven, IsWhereTheLinesCross) {
  // plain 10 us + 1 us a KB, compressed 25 us + 0.5 us a KB: they meet at 30 KB
  EXPECT_EQ(break_even({10'000, 20, 30}, {100'000, 110, 75}), 30'000u);
  // the same lines, both trials beyond the crossing, or before it
  EXPECT_EQ(break_even({50'000, 60, 50}, {100'000, 110, 75}), 30'000u);
  EXPECT_EQ(break_even({10'000, 20, 30}, {20'000, 30, 35}), 30'000u);
}

TEST(BreakEven, IsZeroWhereCompressionAlwaysWins) {
  EXPECT_EQ(break_even({10'000, 20, 10}, {100'000, 200, 100}), 0u);
  EXPECT_EQ(break_even({10'000, 20, 10}, {100'000, 110, 105}), 0u) << "it gains less with size, yet it gains";
  EXPECT_EQ(break_even({10'000, 20, 10}, {100'000, 110, 100}), 0u);
}

TEST(BreakEven, IsBeyondAllSizesWhereItNeverWins) {
  EXPECT_EQ(break_even({10'000, 20, 30}, {100'000, 110, 130}), kNever);
  EXPECT_EQ(break_even({10'000, 20, 30}, {100'000, 110, 120}), kNever) << "parallel";
  EXPECT_EQ(break_even({10'000, 30, 20}, {100'000, 110, 120}), kNever) << "it wins for small tensors alone";
  EXPECT_EQ(break_even({10'000, 20, 20}, {100'000, 110, 110}), kNever) << "no difference";
}

}  // namespace
}  // namespace terse::test
