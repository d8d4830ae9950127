// SPDX-License-Identifier: Apache-2.0
//
// What libFuzzer starts from, what it has found so far, and a few thousand changes of both, in an ordinary
// build.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace terse::fuzz {
namespace {

std::string complaint(const Target& target, const Bytes& input) {
  try {
    target.run(input);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::vector<Bytes> regressions(const Target& target) {
  std::vector<Bytes> found;
  const auto directory = std::filesystem::path(TERSE_FUZZ_REGRESSIONS) / target.name;
  if (!std::filesystem::exists(directory)) return found;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    EXPECT_FALSE(file.bad()) << entry.path();
    found.push_back(Writer().text(text).done());
  }
  return found;
}

class Replay : public testing::TestWithParam<std::size_t> {
 protected:
  const Target& target() const { return targets()[GetParam()]; }
};

TEST_P(Replay, SeedsAndRegressions) {
  const auto seeds = target().seeds();
  ASSERT_FALSE(seeds.empty());
  for (std::size_t k = 0; k < seeds.size(); ++k) EXPECT_EQ(complaint(target(), seeds[k]), "") << "seed " << k;
  for (const Bytes& input : regressions(target())) EXPECT_EQ(complaint(target(), input), "");
}

TEST_P(Replay, SeedsThatWereChanged) {
  std::mt19937_64 random(11);
  for (const Bytes& seed : target().seeds()) {
    for (int round = 0; round < 20; ++round) {
      Bytes input = seed;
      for (std::uint64_t changes = 1 + random() % 4; changes > 0 && !input.empty(); --changes) {
        const std::size_t at = random() % input.size();
        if (random() % 8 == 0) {
          input.resize(at);
        } else {
          input[at] = random() % 2 == 0 ? static_cast<std::byte>(random())
                                        : input[at] ^ (std::byte{1} << static_cast<int>(random() % 8));
        }
      }
      ASSERT_EQ(complaint(target(), input), "") << "round " << round;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::Range<std::size_t>(0, targets().size()),
                         [](const auto& tested) { return std::string(targets()[tested.param].name); });

/// A target that accepts everything would find nothing.
TEST(Promises, ABrokenPromiseIsSeen) {
  EXPECT_THROW(require(false, "this"), std::logic_error);
  EXPECT_EQ(outcome_of([] { throw Error(ErrorCode::corrupt_data, "x"); }), "corrupt_data: x");
}

}  // namespace
}  // namespace terse::fuzz
