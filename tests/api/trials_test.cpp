// SPDX-License-Identifier: Apache-2.0
//
// The trials of `auto`, when something goes wrong in one of their calls: no rank leaves them alone.
#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
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

/// A codec that counts values that are no matrix of the rows that it is told of.
class RowsCounter final : public Codec {
 public:
  RowsCounter() : Codec("rows_counter", "rows_counter", {.lossless = true}) {}
  std::size_t encodings() const { return encodings_; }
  std::size_t misfits() const { return misfits_; }

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override { return count * size_of(dtype); }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext& context,
                                       std::span<std::byte> payload) const override {
    ++encodings_;
    if (context.rows != 0 && values.count % context.rows != 0) ++misfits_;
    std::memcpy(payload.data(), values.data, values.bytes());
    return values.bytes();
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into, double) const override {
    std::memcpy(out.data, payload.data(), out.bytes());
  }

  mutable std::atomic<std::size_t> encodings_ = 0;
  mutable std::atomic<std::size_t> misfits_ = 0;
};

/// Trials have tensors of their own, of which the caller's rows say nothing.
TEST(Trials, HaveNoRows) {
  const auto codec = std::make_shared<RowsCounter>();
  run_ranks(1, [&](ThreadTransport& transport) {
    std::vector<float> data(30000, 1.0f);
    Engine engine(transport);
    Call call;
    call.in = call.out = view(data);
    call.codec = codec;
    call.rows = 300;
    call.algorithm = &find_algorithm("gather");
    Tuning tuning;
    tuning.compression_pays(engine, call);
  });
  EXPECT_GT(codec->encodings(), 0u);
  EXPECT_EQ(codec->misfits(), 0u);
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

/// Microseconds that a rank's clock shows for the compressed or the plain calls of a round; the first round
/// is a warm-up.
using Durations = std::function<std::uint64_t(int rank, bool compressed, std::size_t round)>;

/// What all ranks find by such clocks, of a tensor of that many elements, asking twice; and how often each
/// clock was read.
bool pays_by_the_clock(std::size_t count, const Durations& durations, std::vector<std::size_t>& reads) {
  const int ranks = 3;
  reads.assign(static_cast<std::size_t>(ranks), 0);
  std::vector<std::uint64_t> shown(static_cast<std::size_t>(ranks));
  std::vector<char> answers(static_cast<std::size_t>(ranks));
  ThreadOptions options;
  options.clock = [&](int rank) {  // compressed and plain calls take turns, between two looks each
    const auto r = static_cast<std::size_t>(rank);
    const std::size_t read = reads[r]++;
    if (read % 2 == 1) shown[r] += 1000 * durations(rank, read / 2 % 2 == 0, read / 4);
    return shown[r];
  };
  run_ranks(
      ranks,
      [&](ThreadTransport& transport) {
        std::vector<float> data(count, 1.0f);
        Engine engine(transport);
        Call call;
        call.in = call.out = view(data);
        call.codec = make_codec("onebit");
        call.algorithm = &algorithm_for(*call.codec, transport.size());
        Tuning tuning;
        const bool first = tuning.compression_pays(engine, call);
        EXPECT_EQ(tuning.compression_pays(engine, call), first) << "found already";
        answers[static_cast<std::size_t>(transport.rank())] = first;
      },
      options);
  for (const char answer : answers) EXPECT_EQ(answer, answers[0]);
  return answers[0] != 0;
}

TEST(Trials, GoByTheSlowestRanksBestRound) {
  const std::size_t in_class_0 = 1000;
  const std::size_t rounds = 6;  // of small calls, a warm-up included
  std::vector<std::size_t> reads;
  const auto pays = [&](const Durations& durations) {
    const bool answer = pays_by_the_clock(in_class_0, durations, reads);
    for (const std::size_t n : reads) EXPECT_EQ(n, 4 * rounds) << "one class, tried once";
    return answer;
  };
  EXPECT_TRUE(pays([](int, bool compressed, std::size_t) { return compressed ? 99 : 100; }));
  EXPECT_FALSE(pays([](int, bool, std::size_t) { return 100; })) << "a draw is no gain";
  EXPECT_FALSE(pays([](int rank, bool compressed, std::size_t) {
    return compressed ? (rank == 1 ? 101 : 1) : 100;
  })) << "one rank is slow";
  EXPECT_TRUE(pays([](int rank, bool compressed, std::size_t) {
    return compressed ? 101 : rank == 2 ? 102 : 1;
  })) << "slower still with plain MPI";
  EXPECT_TRUE(pays([](int, bool compressed, std::size_t round) {
    return compressed && round != 4 ? 1000 : compressed ? 99 : 100;
  })) << "the best round counts";
  EXPECT_FALSE(pays([](int, bool compressed, std::size_t round) {
    return compressed && round == 0 ? 1 : compressed ? 101 : 100;
  })) << "but for the warm-up";
}

TEST(Trials, LookAtEachClassUntilOneIsClear) {
  std::vector<std::size_t> reads;
  const std::size_t in_class_2 = (std::size_t{40} << 10) / sizeof(float);
  EXPECT_TRUE(pays_by_the_clock(
      in_class_2, [](int, bool compressed, std::size_t) { return compressed ? 60 : 100; }, reads));
  EXPECT_EQ(reads[0], 3u * 4 * 6) << "all three classes";
  EXPECT_TRUE(pays_by_the_clock(
      in_class_2, [](int, bool compressed, std::size_t) { return compressed ? 50 : 100; }, reads));
  EXPECT_EQ(reads[0], 2u * 4 * 6) << "two clear wins in succession";
}

}  // namespace
}  // namespace terse::test
