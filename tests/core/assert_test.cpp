// SPDX-License-Identifier: Apache-2.0
#include "core/assert.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>

namespace terse::test {
namespace {

enum class Colour : std::uint8_t { red, green };

TEST(AssertDeathTest, ShowsSentenceConditionPlaceAndValues) {
  const std::size_t slot = 7;
  const int count = -3;
  EXPECT_DEATH(TERSE_ASSERT(slot < 3, "no such slot", slot, count, Colour::green, std::string_view("text")),
               "internal error: no such slot\n"
               ".*assert_test\\.cpp:[0-9]+: slot < 3 does not hold, where slot, count, Colour::green, .* is "
               "7, -3, 1, text");
  EXPECT_DEATH(TERSE_ASSERT(count > 0, "no values"), "no values\n.*count > 0 does not hold\n");
}

TEST(Assert, EvaluatesItsConditionOnceAndGoesOn) {
  int evaluated = 0;
  TERSE_ASSERT(++evaluated == 1, "the condition holds", evaluated);
  EXPECT_EQ(evaluated, 1);
}

}  // namespace
}  // namespace terse::test
