// SPDX-License-Identifier: Apache-2.0
//
// The algorithm summed: an example by hand, the range of sums, pieces that are resent uncompressed, lists,
// segments, several calls under way at once.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codec/rounds.hpp"
#include "collective/engine.hpp"
#include "support/checks.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

using Row = std::vector<double>;

Setting by_sums(Setting s) {
  s.algorithm = "summed";
  return s;
}

/// Two calls of two ranks, worked out on paper. Codes go up to 3, of magnitudes up to 6: a step is 2.
TEST(Summed, AnExampleByHand) {
  for (const Op op : {Op::average, Op::sum}) {
    for (const bool in_place : {false, true}) {
      Rig rig(by_sums({.ranks = 2, .count = 4, .op = op, .codec = "sum4:block=64", .in_place = in_place}));
      const Rig::Matrix inputs = {{6, -1.5, 0.5, 2}, {-2, 0.5, 0.5, -6}};
      const auto expect = [&](const Rig::Result& result, Row sums, const Rig::Matrix& residuals) {
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        for (double& v : sums) v /= op == Op::average ? 2 : 1;
        EXPECT_EQ(result.out[0].doubles(), sums);
        EXPECT_EQ(rig.workers(), residuals);
        // the larger half of: a fate and a magnitude; a group of codes
        for (const std::size_t bytes : result.wire) EXPECT_EQ(bytes, agreement_bytes(2) + 8 + 32);
      };
      // codes 3 -1 0 1 and -1 0 0 -3
      expect(rig.call(inputs), {4, -2, 0, -4}, {{0, 0.5, 0.5, 0}, {0, 0.5, 0.5, 0}});
      // value + residual 6 -1 1 2 and -2 1 1 -6; halves go to the even code
      expect(rig.call(inputs), {4, 0, 0, -4}, {{0, -1, 1, 0}, {0, 1, 1, 0}});
      EXPECT_TRUE(rig.feedback(0).server().empty()) << "ranks own nothing";
    }
  }
}

/// As many ranks as codes have room for, all at the end of the range: sums do not leave it, nor get into each
/// other's way.
TEST(Summed, SumsAtTheEndsOfTheRange) {
  struct Case {
    const char* codec;
    std::vector<int> ranks;
  };
  for (const Case& one :
       {Case{"sum4:block=64", {1, 2, 3, 4, 7}}, Case{"sum8:block=64", {1, 2, 3, 5, 8, 16}}}) {
    for (const int ranks : one.ranks) {
      for (const auto& [low, high] : {std::pair(1.0, 1.0), {-1.0, 1.0}, {1.0, -1.0}, {-1.0, -1.0}}) {
        Rig rig(by_sums({.ranks = ranks, .count = 64, .op = Op::sum, .codec = one.codec}));
        SCOPED_TRACE(text_of(rig.setting()));
        const double most = (one.codec[3] == '8' ? 127 : 7) / ranks;
        Row row(64);
        for (std::size_t i = 0; i < 32; ++i) row[i] = low * most;
        for (std::size_t i = 32; i < 64; ++i) row[i] = high * most;
        Row sums = row;
        for (double& v : sums) v *= ranks;
        const auto result = rig.call(Rig::Matrix(static_cast<std::size_t>(ranks), row));
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        ASSERT_EQ(result.out[0].doubles(), sums);
        for (const Row& residual : rig.workers()) ASSERT_EQ(residual, Row(64));
      }
    }
  }
}

TEST(Summed, AnyCountAndRanks) {
  for (const int ranks : thinned({1, 2, 3, 4, 5, 7, 8})) {
    for (const std::size_t count : thinned({0u, 1u, 63u, 64u, 65u, 1009u, 30011u})) {
      for (const Op op : {Op::average, Op::sum}) {
        Setting s = by_sums({.ranks = ranks, .count = count, .op = op, .codec = "sum8:block=64"});
        if (op == Op::sum && ranks < 8) s.codec = "sum4:block=128";
        s.segment_bytes = count % 2 == 0 ? 1000 : 4096;
        s.in_place = ranks % 2 == 0;
        Rig rig(s);
        SCOPED_TRACE(text_of(s));
        for (std::uint64_t step = 1; step <= 2; ++step) check_call(rig, normal_inputs(rig, step));
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// A block longer than what is worked on at a time.
TEST(Summed, LongBlocks) {
  for (const DType dtype : kAllDTypes) {
    Setting s = by_sums({.ranks = 3, .count = 9001, .dtype = dtype, .codec = "sum8:block=4096"});
    if (dtype == DType::f32) s.residual = ResidualType::bf16;
    Rig rig(s);
    SCOPED_TRACE(text_of(s));
    for (std::uint64_t step = 1; step <= 2; ++step) check_call(rig, normal_inputs(rig, step));
    if (HasFatalFailure()) return;
  }
}

TEST(Summed, PiecesThatAreNotFiniteGoExactly) {
  std::uint64_t turn = 0;
  for (const int ranks : thinned({1, 2, 3, 5})) {
    for (const DType dtype : kAllDTypes) {
      for (const std::size_t segment_bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{1} << 20}) {
        ++turn;
        Setting s = by_sums({.ranks = ranks, .count = 64 * 13 + 5, .dtype = dtype});
        s.op = turn % 2 == 0 ? Op::average : Op::sum;
        s.codec = turn % 3 == 0 ? "sum4:block=64" : "sum8:block=64";
        s.in_place = turn % 2 == 0;
        s.segment_bytes = segment_bytes;
        s.checksum = turn % 3 == 1;
        s.style = style_of(turn);
        Rig rig(s);
        SCOPED_TRACE(text_of(s));
        check_calls_around_flagged(rig, turn);
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// Whatever the segments, the same bits.
TEST(Summed, SegmentsChangeNothing) {
  for (const char* codec : {"sum8:block=64", "sum4:block=128"}) {
    Rig::Result first;
    Rig::Matrix residuals;
    for (const std::size_t segment_bytes : {std::size_t{1} << 20, std::size_t{1}, std::size_t{3000}}) {
      Rig rig(by_sums({.ranks = 3, .count = 5003, .codec = codec, .segment_bytes = segment_bytes}));
      const auto result = rig.call(normal_inputs(rig, 5));
      ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
      if (first.out.empty()) {
        first = result;
        residuals = rig.workers();
      }
      EXPECT_TRUE(result.out[0].same_bits(first.out[0])) << codec << ", segments of " << segment_bytes;
      EXPECT_EQ(rig.workers(), residuals);
    }
  }
}

/// Calls whose reductions wait for messages, and plain ones, ended in another order than begun: all ranks
/// enter MPI's reductions in one order.
TEST(Summed, SeveralCallsUnderWay) {
  constexpr std::size_t kCount = 3001;
  constexpr int kRanks = 3;
  struct Kind {
    const char* codec;
    const char* algorithm;
  };
  const std::vector<Kind> kinds = {{"sum8:block=64", "summed"},
                                   {"identity", "exact"},
                                   {"sum4:block=64", "summed"},
                                   {"onebit:block=64", "two_phase"},
                                   {"sum8:block=128", "summed"}};
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<std::vector<Tensor>> outs(kinds.size(), std::vector<Tensor>(kRanks));
    const auto left =
        try_ranks(kRanks,
                  [&](ThreadTransport& t) {
                    Engine engine(t, {});
                    std::vector<Tensor> ins;
                    ins.reserve(kinds.size());
                    std::vector<Execution*> under_way;
                    for (std::size_t k = 0; k < kinds.size(); ++k) {
                      ins.emplace_back(normal_values(kCount, DType::f32, seed + k, t.rank()), DType::f32);
                      Tensor& out = outs[k][static_cast<std::size_t>(t.rank())];
                      out = Tensor(kCount, DType::f32);
                      Call call;
                      call.in = std::as_const(ins.back()).view();
                      call.out = out.view();
                      call.codec = make_codec(kinds[k].codec);
                      call.algorithm = &find_algorithm(kinds[k].algorithm);
                      call.op = Op::average;
                      call.segment_bytes = 2000;
                      under_way.push_back(&engine.start(call));
                    }
                    // each rank in another order
                    for (std::size_t k = 0; k < kinds.size(); ++k) {
                      engine.finish(*under_way[(2 * k + static_cast<std::size_t>(t.rank())) % kinds.size()]);
                    }
                  },
                  {.seed = seed});
    for (const auto& error : left) ASSERT_EQ(sentence_of(error), "");
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      Rig rig({.ranks = kRanks,
               .count = kCount,
               .codec = kinds[k].codec,
               .algorithm = kinds[k].algorithm,
               .feedback = false,
               .segment_bytes = 2000});
      Rig::Matrix inputs;
      for (int r = 0; r < kRanks; ++r) inputs.push_back(normal_values(kCount, DType::f32, seed + k, r));
      const auto alone = rig.call(inputs);
      for (const Tensor& out : outs[k]) EXPECT_TRUE(out.same_bits(alone.out[0])) << kinds[k].codec;
    }
  }
}

/// Several tensors in one call, of which pieces hold parts: as one by one.
TEST(Summed, ListsAreAsTensorsOneByOne) {
  const std::vector<std::size_t> counts = {5, 0, 700, 64, 1, 1300};
  for (const int ranks : {1, 2, 3, 5}) {
    std::vector<std::vector<Tensor>> outs(counts.size(),
                                          std::vector<Tensor>(static_cast<std::size_t>(ranks)));
    const auto values = [&](std::size_t t, int rank) {
      return normal_values(counts[t], DType::f32, 30 + t, rank);
    };
    const auto left = try_ranks(ranks, [&](ThreadTransport& t) {
      Engine engine(t, {});
      std::vector<Tensor> ins;
      std::vector<CallTensor> tensors;
      ins.reserve(counts.size());
      for (std::size_t k = 0; k < counts.size(); ++k) {
        ins.emplace_back(values(k, t.rank()), DType::f32);
        Tensor& out = outs[k][static_cast<std::size_t>(t.rank())];
        out = Tensor(counts[k], DType::f32);
        tensors.push_back({std::as_const(ins.back()).view(), out.view(), nullptr});
      }
      Call call;
      call.tensors = tensors;
      call.codec = make_codec("sum8:block=64");
      call.algorithm = &find_algorithm("summed");
      call.segment_bytes = 1000;
      engine.run(call);
    });
    for (const auto& error : left) ASSERT_EQ(sentence_of(error), "");
    for (std::size_t k = 0; k < counts.size(); ++k) {
      Rig rig(by_sums(
          {.ranks = ranks, .count = counts[k], .op = Op::sum, .codec = "sum8:block=64", .feedback = false}));
      Rig::Matrix inputs;
      for (int r = 0; r < ranks; ++r) inputs.push_back(values(k, r));
      const auto alone = rig.call(inputs);
      for (const Tensor& out : outs[k]) EXPECT_TRUE(out.same_bits(alone.out[0])) << "tensor " << k;
    }
  }
}

/// What is left out is kept, at most half a step of it, and comes later: means of many calls are right.
TEST(Summed, ResidualsStayWithinHalfAStep) {
  Rig rig(by_sums({.ranks = 4, .count = 1000, .codec = "sum4:block=64"}));
  const Rig::Matrix inputs = normal_inputs(rig, 9);
  double largest = 0;
  for (const Row& row : inputs) {
    for (const double v : row) largest = std::max(largest, std::abs(v));
  }
  constexpr int kCalls = 50;
  Row mean(1000);
  for (int call = 0; call < kCalls; ++call) {
    const auto result = rig.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += result.out[0][i] / kCalls;
  }
  // codes are -1, 0 and 1: a step is the largest of value + residual, at most twice the largest value, since
  // half a step is what a residual has at most
  const double half = 1.01 * largest;
  for (const Row& residual : rig.workers()) {
    for (const double e : residual) ASSERT_LE(std::abs(e), half);
  }
  for (std::size_t i = 0; i < mean.size(); ++i) {
    double want = 0;
    for (const Row& row : inputs) want += row[i] / 4;
    ASSERT_NEAR(mean[i], want, half / kCalls) << "element " << i;
  }
}

/// A codec from outside the library that says of itself what it cannot be.
class Boaster final : public Codec {
 public:
  Boaster() : Codec("boaster", "boaster", {.summable = true}) {}

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override { return count * size_of(dtype); }
  std::optional<std::size_t> do_encode(ConstView, DType, const EncodeContext&,
                                       std::span<std::byte>) const override {
    return 0;
  }
  void do_decode(std::span<const std::byte>, DType, View, Into, double) const override {}
};

TEST(Summed, OnlyForTheLibrarysOwn) {
  const Boaster codec;
  EXPECT_EQ(algorithm_for(codec, 2).name, "two_phase");
  EXPECT_THROW(check_pair({.algorithm = find_algorithm("summed"), .codec = codec, .ranks = 2}), Error);
}

/// On more ranks than sums have room for, residuals of summed go on with two_phase, and back: nothing is
/// lost.
TEST(Summed, ResidualsGoToTheAlgorithmOfOtherNumbersOfRanks) {
  for (const auto& [from, to] : {std::pair("summed", "two_phase"), std::pair("two_phase", "summed")}) {
    const std::size_t count = 500;
    Rig before({.ranks = 4, .count = count, .codec = "sum4:block=64", .algorithm = from});
    const auto inputs = normal_inputs(before, 3);
    before.call(inputs);
    std::vector<std::vector<std::byte>> saves;
    std::vector<double> owed(count);
    const auto workers = before.workers();
    const auto servers = before.servers();
    const auto chunks = before.chunks();
    for (std::size_t r = 0; r < 4; ++r) {
      saves.push_back(before.feedback(static_cast<int>(r)).save());
      for (std::size_t i = 0; i < count; ++i) owed[i] += workers[r][i] / 4;
      for (std::size_t k = 0; k < servers[r].size(); ++k) owed[chunks[r].offset + k] += servers[r][k];
    }
    Rig after({.ranks = 3, .count = count, .codec = "sum4:block=64", .algorithm = to});
    for (int r = 0; r < 3; ++r) after.feedback(r).load(std::span<const std::vector<std::byte>>(saves));
    const auto result = after.call(Rig::Matrix(3, Row(count)));
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    const auto left = after.workers();
    const auto kept = after.servers();
    std::vector<double> all = result.out[0].doubles();
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t i = 0; i < count; ++i) all[i] += left[r][i] / 3;
      for (std::size_t k = 0; k < kept[r].size(); ++k) all[after.chunks()[r].offset + k] += kept[r][k];
    }
    for (std::size_t i = 0; i < count; ++i) ASSERT_NEAR(all[i], owed[i], 1e-5) << from << " " << i;
  }
}

TEST(Summed, WhatDoesNotGoTogetherIsNamed) {
  const auto expect_names = [](const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
  };
  expect_names(refusal({.codec = "onebit", .algorithm = "summed"}),
               {"summed", "onebit", "do not add up", "two_phase"});
  expect_names(refusal({.ranks = 8, .codec = "sum4", .algorithm = "summed"}),
               {"summed", "sum4", "8 ranks", "room for 7"});
  EXPECT_EQ(refusal({.ranks = 7, .codec = "sum4", .algorithm = "summed"}), "");
  EXPECT_EQ(refusal({.ranks = 8, .codec = "sum4", .algorithm = "two_phase"}), "");
  expect_names(refusal({.ranks = 128, .codec = "sum8", .algorithm = "summed"}),
               {"128 ranks", "room for 127"});
  EXPECT_EQ(algorithm_for(*make_codec("sum8"), 127).name, "summed");
  EXPECT_EQ(algorithm_for(*make_codec("sum8"), 128).name, "two_phase");
  EXPECT_EQ(algorithm_for(*make_codec("sum4"), 8).name, "two_phase");
  EXPECT_EQ(algorithm_for(*make_codec("randomk"), 10000).name, "summed");
}

}  // namespace
}  // namespace terse::test
