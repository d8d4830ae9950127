// SPDX-License-Identifier: Apache-2.0
#include "interpose/tally.hpp"

#include <gtest/gtest.h>

#include <cfenv>
#include <clocale>
#include <locale>
#include <string>
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

std::uint64_t in_nanoseconds(double seconds) { return static_cast<std::uint64_t>(seconds * 1e9); }

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
                 .nanoseconds = in_nanoseconds(seconds)});
    }
    tally.add(0, site, 1000,
              {.calls = 1,
               .sampled = 1,
               .compared = 1,
               .bytes_before = 1000,
               .bytes_after = 1000,
               .sampled_bytes = 1000,
               .sampled_nanoseconds = in_nanoseconds(exact_seconds)});
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
            {.calls = 1,
             .sampled = 1,
             .compared = 1,
             .sampled_bytes = 1000,
             .sampled_nanoseconds = in_nanoseconds(1)});
  tally.add(0, kHere, 1000,
            {.calls = 1, .compressed = 1, .timed_bytes = 1000, .nanoseconds = in_nanoseconds(0.5)});
  tally.add(0, kHere, 100000,
            {.calls = 1, .compressed = 1, .timed_bytes = 100000, .nanoseconds = in_nanoseconds(2)});
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
  EXPECT_TRUE(report["warnings"].empty()) << "other calls went by";
}

/// A program whose calls do not come by is told so: else a report of zeros looks as if all were well.
TEST(Tally, WhereNoCallWasSeenTheReportSaysSo) {
  const Json nothing = {{"passed_on", 0}, {"rules", Tally().to_json(one_rule(), {})}};
  const std::string words = in_words(merge({nothing, nothing}, one_rule()));
  EXPECT_NE(words.find("WARNING: no call of MPI_Allreduce by the program was seen"), std::string::npos)
      << words;
}

/// Groups digits in twos with an apostrophe and has a semicolon before decimals, as no locale does.
class OddNumbers : public std::numpunct<char> {
  char do_decimal_point() const override { return ';'; }
  char do_thousands_sep() const override { return '\''; }
  std::string do_grouping() const override { return "\2"; }
};

/// The C locale of some language that is installed here and has a decimal comma; null where there is none.
const char* set_locale_with_comma() {
  for (const char* name :
       {"de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8", "fr_FR.utf8", "tr_TR.UTF-8"}) {
    if (std::setlocale(LC_ALL, name) != nullptr && *std::localeconv()->decimal_point == ',') return name;
  }
  return nullptr;
}

// All that comes of a run: the ranks' words as they travel, the report as JSON and in words.
std::vector<std::string> texts_of_a_run() {
  std::vector<Json> words;
  for (const double squares : {9.25, 1600000.0}) {
    words.push_back(Json::parse(word_of(12345, 0.25, 1234.5, squares).dump()));
  }
  Settings settings;
  settings.rules = parse_rules("[gradients]\ncodec=topk:ratio=0.0125\n", "FILE");
  const Json report = merge(words, settings);
  return {words[0].dump(), report.dump(), in_words(report), describe(settings)};
}

TEST(Tally, NumbersAreTheSameInAnyLocale) {
  const std::vector<std::string> want = texts_of_a_run();
  EXPECT_NE(want[2].find("24690 calls: 24688 compressed, 2 exact (2 to compare with); 49.4 MB -> "),
            std::string::npos)
      << want[2];
  const std::locale before = std::locale::global(std::locale(std::locale::classic(), new OddNumbers));
  const std::vector<std::string> odd = texts_of_a_run();
  std::locale::global(before);
  EXPECT_EQ(odd, want);
  if (set_locale_with_comma() != nullptr) {
    const std::vector<std::string> commas = texts_of_a_run();
    std::setlocale(LC_ALL, "C");
    EXPECT_EQ(commas, want);
  }
}

/// What the program has asked of the processor is its own affair: no flag is raised, no trap is taken and the
/// rounding does not show.
TEST(Tally, TheFloatingPointModeIsTheProgramS) {
  const std::vector<std::string> want = texts_of_a_run();
  std::feclearexcept(FE_ALL_EXCEPT);
  const int mode = std::fegetround();
  std::fesetround(FE_UPWARD);
  Tally tally;
  const Settings settings = one_rule();
  tally.add(0, kHere, 1000, {.calls = 3, .compressed = 3, .bytes_before = 1000, .bytes_after = 3});
  const Json report = merge({{{"passed_on", 0}, {"rules", tally.to_json(settings, {{0, 3.0}})}}}, settings);
  const std::string words = in_words(report);
  const int raised = std::fetestexcept(FE_ALL_EXCEPT);
  const std::vector<std::string> upward = texts_of_a_run();
  EXPECT_EQ(std::fegetround(), FE_UPWARD);
  std::fesetround(mode);
  EXPECT_EQ(raised, 0);
  EXPECT_EQ(upward, want);
  EXPECT_NE(words.find("norm 1.732\n"), std::string::npos) << words;
}

TEST(Tally, SitesHaveNames) {
  EXPECT_NE(site_name(kHere).find("+0x"), std::string::npos);
  EXPECT_EQ(site_name(nullptr), "an unknown place");
}

}  // namespace
}  // namespace terse::interpose
