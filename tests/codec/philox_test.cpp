// SPDX-License-Identifier: Apache-2.0
#include "codec/philox.hpp"

#include <gtest/gtest.h>

namespace terse::test {
namespace {

/// The known answers that come with Random123, of Philox4x32-10.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0, 0), (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox({kOnes, kOnes, kOnes, kOnes}, kOnes, kOnes),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

/// An element has its own half of a word, wherever a piece begins, and however far into a tensor.
TEST(Philox, ElementsHaveHalvesInTurn) {
  const RandomKey key{.call = 0x1234567890, .stream = 7, .position = (std::uint64_t{5} << 35) + 16};
  for (std::uint64_t i = 0; i < 16; ++i) {
    const PhiloxWords words = philox({static_cast<std::uint32_t>(2 + i / 8), 5, 0x34567890, 0x12}, 99, 7);
    EXPECT_EQ(random_half(99, key.at(i)), words[i % 8 / 2] >> (i % 2 * 16) & 0xffff) << i;
  }
}

TEST(Philox, UnitsAreTheMiddlesOfTheirParts) {
  EXPECT_EQ(random_unit<float>(0xffff), 1.0f - 0x1p-17f);
  EXPECT_EQ(random_unit<double>(0), 0x1p-17);
  EXPECT_EQ(random_unit<float>(0x8000), 0.5f + 0x1p-17f);
}

}  // namespace
}  // namespace terse::test
