// SPDX-License-Identifier: Apache-2.0
//
// DefaultFloatingPoint: inside, the default mode, whatever the caller's; afterwards the caller's, flags too.
#include "core/floating_point.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <limits>
#include <thread>

#include "support/caller_mode.hpp"

namespace terse::test {
namespace {

// What the compiler knows nothing of, so that it computes nothing beforehand.
template <class T>
T opaque(T value) {
  volatile T hidden = value;
  return hidden;
}

void expect_default_arithmetic() {
  constexpr float kSmallest = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(opaque(kSmallest) * opaque(3.0f), 3 * kSmallest) << "subnormals are kept";
  EXPECT_EQ(opaque(std::numeric_limits<float>::min()) * opaque(0.5f), std::numeric_limits<float>::min() / 2);
  EXPECT_EQ(opaque(1.0) + opaque(0x1p-54), 1.0) << "to nearest";
  EXPECT_EQ(opaque(1.0) - opaque(0x1p-55), 1.0) << "to nearest";
  // exceptions of every kind, none of which traps
  EXPECT_EQ(opaque(1.0) / opaque(0.0), std::numeric_limits<double>::infinity());
  EXPECT_NE(opaque(0.0) / opaque(0.0), 0.0);
  EXPECT_EQ(opaque(1e300) * opaque(1e300), std::numeric_limits<double>::infinity());
  EXPECT_EQ(opaque(1e-300) * opaque(1e-300), 0.0);
}

TEST(DefaultFloatingPoint, IsTheDefaultInsideAndTheCallersAfterwards) {
  for (const CallerMode mode : kAllCallerModes) {
    for (const int flags : {0, FE_INEXACT, FE_ALL_EXCEPT}) {
      bool unchanged = false;
      {
        const CallerModeScope caller(mode, flags);
        {
          const DefaultFloatingPoint outer;
          {
            const DefaultFloatingPoint inner;
            expect_default_arithmetic();
          }
          expect_default_arithmetic();
        }
        unchanged = caller.unchanged();
      }
      EXPECT_TRUE(unchanged) << "mode " << static_cast<int>(mode) << ", flags " << flags;
    }
  }
}

TEST(DefaultFloatingPoint, GivesBackTheModeWhereAnExceptionUnwinds) {
  bool unchanged = false;
  {
    const CallerModeScope caller(CallerMode::rounds_up, FE_DIVBYZERO);
    try {
      const DefaultFloatingPoint mode;
      expect_default_arithmetic();
      throw 1;
    } catch (int) {
      unchanged = caller.unchanged();
    }
  }
  EXPECT_TRUE(unchanged);
}

TEST(DefaultFloatingPoint, HoldsOnAThreadThatInheritsTheMode) {
  const CallerModeScope caller(CallerMode::flushes);
  std::thread([] {
    const DefaultFloatingPoint mode;
    expect_default_arithmetic();
  }).join();
  EXPECT_TRUE(caller.unchanged());
}

}  // namespace
}  // namespace terse::test
