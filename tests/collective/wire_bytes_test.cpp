// SPDX-License-Identifier: Apache-2.0
//
// "1-bit" means a bit an element: bytes on the wire in closed form. check_call compares every other call with
// the schedule's count.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

TEST(WireBytes, FollowTheFormulaForLargeTensors) {
  for (const char* spec : {"onebit", "onebit:block=64", "identity", "cast:f16"}) {
    for (const int ranks : {2, 4, 8}) {
      const std::size_t count = std::size_t{1} << 18;
      Rig rig({.ranks = ranks, .count = count, .codec = spec, .segment_bytes = std::size_t{1} << 20});
      SCOPED_TRACE(text_of(rig.setting()));
      const auto result = rig.call(exact_inputs(rig.setting(), 1));
      ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
      ASSERT_NO_FATAL_FAILURE(expect_wire_bytes(rig, result));
      const double block = static_cast<double>(rig.codec()->traits().block);
      const double element = rig.codec()->name() == "onebit" ? 1.0 / 8 + 4 / block
                             : rig.codec()->name() == "cast" ? 2
                                                             : 4;
      const double formula = 2.0 * (ranks - 1) / ranks * static_cast<double>(count) * element;
      for (const std::size_t bytes : result.wire) {
        EXPECT_NEAR(static_cast<double>(bytes) / formula, 1.0, 0.03);
      }
    }
  }
}

/// No padding, whatever the number of ranks: a small bias stays small.
TEST(WireBytes, SmallTensorsStaySmall) {
  Rig rig({.ranks = 8, .count = 1024});
  const auto result = rig.call(exact_inputs(rig.setting(), 1));
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  ASSERT_NO_FATAL_FAILURE(expect_wire_bytes(rig, result));
  EXPECT_EQ(result.wire[0], agreement_bytes(8) + 7u * (16 + 4 + 128))
      << "the owner of the one block sends it to seven ranks";
  for (std::size_t r = 1; r < 8; ++r) {
    EXPECT_EQ(result.wire[r], agreement_bytes(8) + 16 + 4 + 128) << "the others send it once";
  }
}

TEST(WireBytes, OneRankAndNoElementsSendNothing) {
  for (const auto& [ranks, count] : {std::pair{1, 5000u}, std::pair{4, 0u}}) {
    Rig rig({.ranks = ranks, .count = count});
    const auto result = rig.call(exact_inputs(rig.setting(), 1));
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    for (const std::size_t bytes : result.wire) EXPECT_EQ(bytes, agreement_bytes(ranks)) << "nothing else";
  }
}

}  // namespace
}  // namespace terse::test
