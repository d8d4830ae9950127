// SPDX-License-Identifier: Apache-2.0
#include "interpose/tally.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace terse::interpose {
namespace {

using Json = nlohmann::ordered_json;

Settings one_rule() {
  Settings settings;
  settings.rules = parse_rules("[gradients]\ncodec=onebit\n", "FILE");
  return settings;
}

const void* const kHere = reinterpret_cast<const void*>(&one_rule);
const void* const kThere = reinterpret_cast<const void*>(&parse_rules);

// One rank's word: `calls` calls at each of two places, of 1000 bytes, of which the last is exact, to compare
// with.
Json word_of(std::uint64_t calls, double seconds, double exact_seconds, double squares) {
  Tally tally;
  for (const void* site : {kHere, kThere}) {
    for (std::uint64_t i = 0; i + 1 < calls; ++i) {
      tally.add(0, site, 1000,
                {.calls = 1,
                 .compressed = 1,
                 .bytes_before = 1000,
                 .bytes_after = 50,
                 .timed_bytes = 1000,
                 .seconds = seconds});
    }
    tally.add(0, site, 1000,
              {.calls = 1,
               .sampled = 1,
               .compared = 1,
               .bytes_before = 1000,
               .bytes_after = 1000,
               .sampled_bytes = 1000,
               .sampled_seconds = exact_seconds});
  }
  return {{"passed_on", calls}, {"rules", tally.to_json(one_rule(), {{0, squares}})}};
}

TEST(Tally, RanksBecomeOneReport) {
  const Json report = merge({word_of(5, 0.25, 1, 9), word_of(5, 0.5, 2, 16)}, one_rule());
  EXPECT_EQ(report["ranks"], 2);
  EXPECT_EQ(report["passed_on"], 5);
  EXPECT_EQ(report["calls"], 10);
  const Json& rule = report["rules"][0];
  EXPECT_EQ(rule["name"], "gradients");
  EXPECT_EQ(rule["compressed"], 8);
  EXPECT_EQ(rule["sampled"], 2);
  EXPECT_EQ(rule["bytes_before"], 20000.0);
  EXPECT_EQ(rule["bytes_after"], 2 * (8 * 50 + 2 * 1000.0));
  EXPECT_EQ(rule["ratio"], 20000 / 4800.0);
  EXPECT_EQ(rule["seconds"], 4.0) << "of the slowest rank";
  EXPECT_EQ(rule["seconds_saved"], 16 - 4.0) << "8 calls of 2 s, of the slowest rank, less what they took";
  EXPECT_EQ(rule["residual_norm"], 5.0);
  ASSERT_EQ(rule["sites"].size(), 2u);
  EXPECT_EQ(rule["sites"][0]["calls"], 5);
  EXPECT_EQ(rule["sites"][0]["seconds_saved"], 6.0);
  EXPECT_TRUE(report["warnings"].empty());
  const std::string words = in_words(report);
  for (const char* part : {"10 calls of MPI_Allreduce taken, 5 calls passed on; 2 ranks",
                           "rule gradients (onebit:", "10 calls: 8 compressed, 2 exact (2 to compare with)",
                           "1/4.2", "12 s less than plain MPI by 2 timed calls", "norm 5"}) {
    EXPECT_NE(words.find(part), std::string::npos) << part << " is not in\n" << words;
  }
}

/// Small calls, which went exactly now and then, say nothing of large ones, which never did.
TEST(Tally, CallsAreComparedWithThoseOfTheirSize) {
  Tally tally;
  tally.add(0, kHere, 1000,
            {.calls = 1, .sampled = 1, .compared = 1, .sampled_bytes = 1000, .sampled_seconds = 1});
  tally.add(0, kHere, 1000, {.calls = 1, .compressed = 1, .timed_bytes = 1000, .seconds = 0.5});
  tally.add(0, kHere, 100000, {.calls = 1, .compressed = 1, .timed_bytes = 100000, .seconds = 2});
  const Json word = {{"passed_on", 0}, {"rules", tally.to_json(one_rule(), {})}};
  const Json report = merge({word}, one_rule());
  EXPECT_EQ(report["rules"][0]["seconds_saved"], 0.5);
  EXPECT_EQ(report["rules"][0]["seconds"], 2.5);
  EXPECT_EQ(report["rules"][0]["sites"].size(), 1u);
}

/// Code that lies in no file: two places, one name.
TEST(Tally, PlacesWithoutANameAreAddedUp) {
  Tally tally;
  for (const std::uintptr_t place : {8, 16}) {
    tally.add(0, reinterpret_cast<const void*>(place), 1000, {.calls = 3});
  }
  const Json word = {{"passed_on", 0}, {"rules", tally.to_json(one_rule(), {})}};
  EXPECT_EQ(merge({word, word}, one_rule())["calls"], 6);
}

TEST(Tally, SaysWhenItDoesNotPay) {
  const Json report = merge({word_of(5, 2, 1, 0)}, one_rule());
  EXPECT_EQ(report["rules"][0]["seconds_saved"], -8.0);
  ASSERT_EQ(report["warnings"].size(), 1u);
  EXPECT_NE(in_words(report).find("WARNING: rule gradients: it took more time"), std::string::npos);
}

TEST(Tally, ARuleThatTookNothingSaysSo) {
  const Json nothing = {{"passed_on", 3}, {"rules", Tally().to_json(one_rule(), {})}};
  const Json report = merge({nothing}, one_rule());
  EXPECT_TRUE(report["rules"][0]["ratio"].is_null());
  EXPECT_TRUE(report["rules"][0]["seconds_saved"].is_null());
  EXPECT_NE(in_words(report).find("0 calls: 0 compressed\n"), std::string::npos) << in_words(report);
}

TEST(Tally, SitesHaveNames) {
  EXPECT_NE(site_name(kHere).find("+0x"), std::string::npos);
  EXPECT_EQ(site_name(nullptr), "an unknown place");
}

}  // namespace
}  // namespace terse::interpose
