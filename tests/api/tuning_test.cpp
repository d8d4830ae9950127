// SPDX-License-Identifier: Apache-2.0
//
// For which sizes compression pays, by the times of trials.
#include "api/tuning.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace terse::test {
namespace {

TEST(SizeClass, IsAFactorOfFour) {
  EXPECT_EQ(size_class(0), 0u);
  EXPECT_EQ(size_class(2048), 0u);
  EXPECT_EQ(size_class(8191), 0u);
  EXPECT_EQ(size_class(8192), 1u);
  EXPECT_EQ(size_class(32767), 1u);
  EXPECT_EQ(size_class(32768), 2u);
  EXPECT_EQ(size_class(std::size_t{32} << 20), kSizeClasses - 1);
  EXPECT_EQ(size_class((std::size_t{32} << 20) - 1), kSizeClasses - 2);
  EXPECT_EQ(size_class(~std::size_t{0}), kSizeClasses - 1);
}

TEST(SizeClass, IsTriedAtASizeOfItsOwn) {
  for (std::size_t k = 0; k < kSizeClasses; ++k) {
    EXPECT_EQ(size_class(trial_bytes(k)), k);
    EXPECT_EQ(trial_bytes(k) % sizeof(double), 0u);
  }
}

TEST(Trials, AreSettledByTwoClearWins) {
  const auto settled = [](const std::vector<Trial>& trials) { return is_settled(trials); };
  EXPECT_FALSE(settled({}));
  EXPECT_FALSE(settled({{10, 1}}));
  EXPECT_TRUE(settled({{10, 5}, {20, 10}}));
  EXPECT_FALSE(settled({{10, 5}, {20, 11}}));
  EXPECT_FALSE(settled({{10, 6}, {20, 10}}));
  EXPECT_TRUE(settled({{10, 30}, {20, 10}, {40, 15}}));
  EXPECT_FALSE(settled({{20, 10}, {40, 15}, {80, 100}}));
}

TEST(Trials, DecideForTheirClass) {
  const std::vector<Trial> trials = {{10, 20}, {20, 20}, {40, 30}, {80, 90}};
  EXPECT_FALSE(pays(trials, 0));
  EXPECT_FALSE(pays(trials, 1)) << "a draw is no gain";
  EXPECT_TRUE(pays(trials, 2));
  EXPECT_FALSE(pays(trials, 3)) << "another class has another answer";
}

TEST(Trials, DecideForAllLargerOnesWhereSettled) {
  const std::vector<Trial> trials = {{10, 20}, {40, 20}, {80, 30}};
  ASSERT_TRUE(is_settled(trials));
  EXPECT_FALSE(pays(trials, 0));
  for (std::size_t k = 1; k < kSizeClasses; ++k) EXPECT_TRUE(pays(trials, k));
}

}  // namespace
}  // namespace terse::test
