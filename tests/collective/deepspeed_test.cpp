// SPDX-License-Identifier: Apache-2.0
//
// deepspeed: what padding and a scale for all of the tensor bring with them. The golden vectors and the
// serial model are golden_test.cpp's and conformance_test.cpp's.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

Setting setting_of(int ranks, std::size_t count) {
  return {.ranks = ranks, .count = count, .codec = "onebit:deepspeed", .algorithm = "deepspeed"};
}

TEST(Deepspeed, IsPaddedToAMultipleOfEightRanks) {
  for (const int ranks : {1, 2, 3, 5, 8}) {
    for (const std::size_t count : {0u, 1u, 23u, 24u, 25u, 640u}) {
      Rig rig(setting_of(ranks, count));
      SCOPED_TRACE(text_of(rig.setting()));
      const auto result = check_call(rig, normal_inputs(rig, 1));
      std::size_t padded = count;
      while (padded % (8 * static_cast<std::size_t>(ranks)) != 0) ++padded;
      for (int r = 0; r < ranks; ++r) {
        ASSERT_EQ(rig.feedback(r).worker().count, padded);
        ASSERT_EQ(rig.feedback(r).server().count, padded / static_cast<std::size_t>(ranks));
        ASSERT_EQ(result.out[static_cast<std::size_t>(r)].count(), count);
      }
      // the padding was encoded as +scale, and owes that
      const std::vector<double> owed = rig.workers()[0];
      for (std::size_t i = count; i < padded; ++i) ASSERT_LT(owed[i], 0.0);
    }
  }
}

/// A value that is not finite spoils the scale of the whole tensor: all of it is resent uncompressed, and
/// every residual is what it was.
TEST(Deepspeed, OneBadValueSendsAllOfItExactly) {
  for (const bool in_place : {false, true}) {
    for (const bool checksum : {false, true}) {
      for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
        Setting setting = setting_of(3, 100);
        setting.in_place = in_place;
        setting.checksum = checksum;
        Rig rig(setting);
        SCOPED_TRACE(text_of(setting));
        check_call(rig, normal_inputs(rig, 1));
        const auto workers = rig.workers();
        const auto servers = rig.servers();
        auto inputs = exact_inputs(setting, 2);
        const auto want = ieee_reduction(setting, inputs);
        inputs[1][42] = bad;
        const auto result = rig.call(inputs);
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        ASSERT_EQ(result.calls[0].exact_count, 100u);
        for (std::size_t i = 0; i < 100; ++i) {
          if (i == 42) {
            ASSERT_FALSE(std::isfinite(result.out[0][i]));
          } else {
            ASSERT_EQ(result.out[0][i], want[i]) << i;
          }
        }
        const auto workers_now = rig.workers();
        for (std::size_t r = 0; r < 3; ++r) {
          for (std::size_t i = 0; i < workers[r].size(); ++i) {
            ASSERT_NEAR(workers_now[r][i], workers[r][i], 1e-5) << r << " " << i;
          }
        }
        ASSERT_EQ(rig.servers(), servers);
        check_call(rig, normal_inputs(rig, 3));  // and goes on
      }
    }
  }
}

/// To the tensor's own count, not the padded one, a Feedback is bound; and to its ranks.
TEST(Deepspeed, ResidualsAreOfOneTensorAndItsRanks) {
  Rig rig(setting_of(2, 13));
  check_call(rig, normal_inputs(rig, 1));
  std::vector<std::vector<std::byte>> saves;
  for (int r = 0; r < 2; ++r) saves.push_back(rig.feedback(r).save());

  Rig longer(setting_of(2, 14));  // 16 padded elements as well
  for (int r = 0; r < 2; ++r) longer.feedback(r).load(saves[static_cast<std::size_t>(r)]);
  for (const std::string& error : longer.call(exact_inputs(longer.setting(), 1)).errors) {
    ASSERT_NE(error.find("invalid_state"), std::string::npos) << error;
    ASSERT_NE(error.find("13 elements"), std::string::npos) << error;
  }
  Rig same(setting_of(2, 13));
  for (int r = 0; r < 2; ++r) same.feedback(r).load(saves[static_cast<std::size_t>(r)]);
  check_call(same, normal_inputs(same, 2));

  Feedback other;
  try {
    other.load(saves);
    FAIL() << "re-sharded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("number of ranks"), std::string::npos) << error.what();
  }
  EXPECT_EQ(other.calls(), 0u);
}

/// 13 elements on one rank and 14 on another are 16 on both once padded, and still two different calls.
TEST(Deepspeed, PaddingHidesNoMismatch) {
  Rig rig(setting_of(2, 14));
  const auto result = rig.call(exact_inputs(rig.setting(), 1), {}, [](int rank, Call& call) {
    if (rank == 0) return;
    call.in.count = 13;
    call.out.count = 13;
  });
  for (const std::string& error : result.errors) {
    ASSERT_EQ(error.substr(0, 8), "mismatch") << error;
    ASSERT_NE(error.find("count is 14 on rank 0, 13 on rank 1"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace terse::test
