// SPDX-License-Identifier: Apache-2.0
#include "interpose/tensors.hpp"

#include <gtest/gtest.h>

namespace terse::interpose {
namespace {

TensorKey key(std::uint64_t which) { return {.rule = 0, .dtype = DType::f32, .count = 10, .which = which}; }

TEST(Tensors, OrdinalsCountWhatIsMade) {
  Tensors tensors;
  EXPECT_EQ(tensors.find(key(1)), nullptr);
  EXPECT_EQ(tensors.make(key(1), 40, 100)->ordinal, 1u);
  EXPECT_EQ(tensors.make(key(2), 40, 100)->ordinal, 2u);
  EXPECT_EQ(tensors.find(key(1))->ordinal, 1u);
  EXPECT_EQ(tensors.make(key(1), 40, 100)->ordinal, 3u) << "a fresh one in its place";
  EXPECT_EQ(tensors.find(key(1))->ordinal, 3u);
  tensors.go_on_from(9);
  EXPECT_EQ(tensors.make(key(3), 20, 100)->ordinal, 9u);
  EXPECT_EQ(tensors.next_ordinal(), 10u);
}

TEST(Tensors, WhatIsDroppedMakesRoomAndLeavesItsOrdinal) {
  Tensors tensors;
  tensors.make(key(1), 60, 100);
  tensors.drop(key(2));
  EXPECT_NE(tensors.find(key(1)), nullptr) << "another one was dropped, which there is none of";
  tensors.drop(key(1));
  EXPECT_EQ(tensors.find(key(1)), nullptr);
  EXPECT_EQ(tensors.make(key(2), 60, 100)->ordinal, 2u);
  EXPECT_EQ(tensors.make(key(3), 40, 100)->ordinal, 3u);
  EXPECT_NE(tensors.find(key(2)), nullptr) << "there was room for both";
}

TEST(Tensors, ResidualsAreOfTheTypeAskedFor) {
  Tensors tensors;
  EXPECT_EQ(tensors.make(key(1), 40, 100)->feedback.residual_type(), ResidualType::full);
  EXPECT_EQ(tensors.make(key(1), 20, 100, ResidualType::bf16)->feedback.residual_type(), ResidualType::bf16);
  EXPECT_EQ(tensors.find(key(1))->feedback.residual_type(), ResidualType::bf16);
}

TEST(Tensors, TheNewestMakeRoom) {
  Tensors tensors;
  for (const std::uint64_t which : {1, 2, 3}) tensors.make(key(which), 30, 100);
  tensors.make(key(1), 30, 100);  // now the newest
  tensors.make(key(4), 40, 100);
  EXPECT_EQ(tensors.find(key(1)), nullptr);
  for (const std::uint64_t which : {2, 3, 4}) EXPECT_NE(tensors.find(key(which)), nullptr) << which;
  EXPECT_NE(tensors.make(key(5), 100, 100), nullptr);
  for (const std::uint64_t which : {2, 3, 4}) EXPECT_EQ(tensors.find(key(which)), nullptr) << which;
}

/// A step of ten tensors, and room for nine of them: all but two have their residuals in each step.
TEST(Tensors, MostOfACycleIsKept) {
  Tensors tensors;
  std::size_t fresh = 0;
  for (int step = 0; step < 10; ++step) {
    for (std::uint64_t which = 0; which < 10; ++which) {
      if (tensors.find(key(which)) != nullptr) continue;
      tensors.make(key(which), 10, 90);
      ++fresh;
    }
  }
  EXPECT_LE(fresh, 10u + 9 * 2);
}

/// What does not come any more makes room for what does.
TEST(Tensors, WhatWasNotUsedForLongGoesFirst) {
  Tensors tensors;
  for (std::uint64_t which = 0; which < 9; ++which) tensors.make(key(which), 10, 90);
  std::size_t fresh = 0;
  for (int step = 0; step < 40; ++step) {
    fresh = 0;
    for (std::uint64_t which = 100; which < 105; ++which) {
      if (tensors.find(key(which)) != nullptr) continue;
      tensors.make(key(which), 10, 90);
      ++fresh;
    }
  }
  EXPECT_EQ(fresh, 0u) << "in the last step";
}

TEST(Tensors, WhatNeverFitsIsNotKept) {
  Tensors tensors;
  tensors.make(key(1), 30, 100);
  EXPECT_EQ(tensors.make(key(2), 101, 100), nullptr);
  EXPECT_EQ(tensors.find(key(2)), nullptr);
  EXPECT_NE(tensors.find(key(1)), nullptr) << "nothing had to make room";
}

TEST(Tensors, KeysDifferInEachPart) {
  Tensors tensors;
  const TensorKey base{.rule = 1, .dtype = DType::f32, .count = 10, .which = 5};
  tensors.make(base, 1, 100);
  for (const TensorKey other : {TensorKey{2, DType::f32, 10, 5}, TensorKey{1, DType::f64, 10, 5},
                                TensorKey{1, DType::f32, 11, 5}, TensorKey{1, DType::f32, 10, 6}}) {
    EXPECT_EQ(tensors.find(other), nullptr);
  }
}

}  // namespace
}  // namespace terse::interpose
