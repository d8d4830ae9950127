// SPDX-License-Identifier: Apache-2.0
//
// The trials of `auto`, when something goes wrong in one of their calls: no rank leaves them alone.
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "api/tuning.hpp"
#include "support/faulty_transport.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

constexpr int kToAll = 1;  // the channel of the all-gather: what comes late, and to one rank alone

/// All ranks ask whether compression pays, while rank 1 cannot read its nth message of the all-gather; and
/// then make a small call that is not agreed upon. Returns how many ranks have thrown.
std::size_t try_with_fault(std::size_t nth, bool& altered) {
  const int ranks = 3;
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  const FaultPlan plan{.fault = Fault::truncate, .rank = 1, .channel = kToAll, .nth = nth};
  const auto left = try_ranks(ranks, [&](ThreadTransport& inner) {
    FaultyTransport transport(inner, plan);
    std::string& error = errors[static_cast<std::size_t>(inner.rank())];
    std::vector<float> data(1000, 1.0f);
    Engine engine(transport);
    Call call;
    call.in = call.out = view(data);
    call.codec = make_codec("onebit");
    call.algorithm = &algorithm_for(*call.codec, inner.size());
    Tuning tuning;
    try {
      tuning.compression_pays(engine, call);
    } catch (const Error& e) {
      error = e.what();
    }
    Call small;
    std::vector<float> few(3, 1.0f);
    small.in = small.out = view(few);
    small.codec = make_codec("identity");
    small.algorithm = &find_algorithm("exact");
    small.agree = false;
    engine.run(small);
    EXPECT_EQ(few[0], 3.0f);
    if (inner.rank() == 1) altered = transport.altered();
    // a rank's word may stay unheard, which the world of threads minds unless somebody has thrown
    if (!error.empty()) throw Error(ErrorCode::corrupt_data, error);
  });
  for (std::size_t r = 0; r < left.size(); ++r) {
    const std::string expected = errors[r].empty() ? "" : "corrupt_data: " + errors[r];
    EXPECT_EQ(sentence_of(left[r]), expected) << "rank " << r;
  }
  std::size_t thrown = 0;
  for (const std::string& error : errors) {
    thrown += !error.empty();
    EXPECT_EQ(error, errors[0]) << "not the same on all ranks";
  }
  if (thrown != 0) {
    EXPECT_NE(errors[0].find("rank 1"), std::string::npos) << errors[0];
  }
  return thrown;
}

TEST(Trials, AllRanksLeaveThemTogether) {
  std::size_t found = 0;
  bool altered = true;
  for (std::size_t nth = 0; altered; nth += 1 + nth / 4) {
    SCOPED_TRACE("message " + std::to_string(nth));
    const std::size_t thrown = try_with_fault(nth, altered);
    ASSERT_EQ(thrown, altered ? 3u : 0u);
    found += altered;
  }
  EXPECT_GT(found, 8u);
}

}  // namespace
}  // namespace terse::test
