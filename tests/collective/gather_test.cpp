// SPDX-License-Identifier: Apache-2.0
//
// The algorithm gather: an example by hand, pieces that are resent uncompressed, lists, segments, residuals
// on other ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "codec/elements.hpp"
#include "codec/feedback_state.hpp"
#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");
using Row = std::vector<double>;

Setting by_gather(Setting s) {
  s.algorithm = "gather";
  return s;
}

std::vector<std::byte> bytes_of(ConstView values) {
  const auto* p = static_cast<const std::byte*>(values.data);
  return {p, p + values.bytes()};
}

/// Two calls of two ranks, worked out on paper: blocks of 8, whose scale is the mean magnitude.
TEST(Gather, AnExampleByHand) {
  for (const Op op : {Op::average, Op::sum}) {
    for (const bool in_place : {false, true}) {
      Rig rig(by_gather({.ranks = 2, .count = 8, .op = op, .codec = "onebit:block=8", .in_place = in_place}));
      const Rig::Matrix inputs = {{1, -1, 3, -3, 1, -1, 3, -3}, Row(8, 0.5)};
      const double each = op == Op::sum ? 2 : 1;
      const auto expect = [&](const Rig::Result& result, Row averages, const Row& residuals) {
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        for (double& v : averages) v *= each;
        EXPECT_EQ(result.out[0].doubles(), averages);
        EXPECT_EQ(rig.workers()[0], residuals);
        EXPECT_EQ(rig.workers()[1], Row(8, 0.0));
        for (const std::size_t bytes : result.wire) EXPECT_EQ(bytes, agreement_bytes(2) + 16 + 4 + 1);
      };
      // magnitudes 2 and 0.5
      expect(rig.call(inputs), {1.25, -0.75, 1.25, -0.75, 1.25, -0.75, 1.25, -0.75},
             {-1, 1, 1, -1, -1, 1, 1, -1});
      // value + residual is 0, 0, 4, -4, ...: magnitude 2 again, and zeros are positive
      expect(rig.call(inputs), {1.25, 1.25, 1.25, -0.75, 1.25, 1.25, 1.25, -0.75},
             {-2, -2, 2, -2, -2, -2, 2, -2});
      EXPECT_TRUE(rig.feedback(0).server().empty()) << "ranks own nothing";
    }
  }
}

TEST(Gather, AnyCountAndRanks) {
  for (const int ranks : thinned({1, 2, 3, 4, 5, 7, 8})) {
    for (const std::size_t count : thinned({0u, 1u, 63u, 64u, 65u, 1009u, 30011u})) {
      for (const Op op : {Op::average, Op::sum}) {
        Setting s = by_gather({.ranks = ranks, .count = count, .op = op, .codec = "onebit:block=64"});
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

TEST(Gather, PiecesThatAreNotFiniteGoExactly) {
  constexpr const char* kSpecs[] = {"onebit:block=64", "topk:ratio=0.1", "topk:ratio=0.1,block=64",
                                    "randomk:ratio=0.1,block=64"};
  std::uint64_t turn = 0;
  for (const int ranks : thinned({1, 2, 3, 5})) {
    for (const DType dtype : kAllDTypes) {
      for (const bool in_place : {false, true}) {
        for (const std::size_t segment_bytes : {std::size_t{1}, std::size_t{1000}, std::size_t{1} << 20}) {
          ++turn;
          Setting s = by_gather({.ranks = ranks, .count = 64 * 13 + 5, .dtype = dtype});
          s.op = turn % 2 == 0 ? Op::average : Op::sum;
          s.codec = kSpecs[turn / 2 % std::size(kSpecs)];
          s.in_place = in_place;
          s.segment_bytes = segment_bytes;
          s.checksum = turn % 3 == 0;
          s.style = style_of(turn);
          Rig rig(s);
          SCOPED_TRACE(text_of(s));
          check_calls_around_flagged(rig, turn);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

/// The largest of ten, of each rank: what it sends, and what it owes.
TEST(Gather, SparseSumsByHand) {
  Rig rig(by_gather({.ranks = 3, .count = 10, .op = Op::sum, .codec = "topk:ratio=0.1"}));
  Rig::Matrix inputs(3, Row(10));
  inputs[0][2] = 3;
  inputs[0][5] = -2;
  inputs[1][2] = 1;
  inputs[1][5] = -4;
  inputs[2][9] = 8;
  const auto first = rig.call(inputs);
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(first));
  EXPECT_EQ(first.out[0].doubles(), (Row{0, 0, 3, 0, 0, -4, 0, 0, 0, 8}));
  EXPECT_EQ(rig.workers()[0], (Row{0, 0, 0, 0, 0, -2, 0, 0, 0, 0}));
  EXPECT_EQ(rig.workers()[1], (Row{0, 0, 1, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(rig.workers()[2], Row(10));
  const auto second = rig.call(Rig::Matrix(3, Row(10)));  // what was owed
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(second));
  EXPECT_EQ(second.out[0].doubles(), (Row{0, 0, 1, 0, 0, -2, 0, 0, 0, 0}));
  for (const Row& residual : rig.workers()) EXPECT_EQ(residual, Row(10));
  // a header, the form, one distance, one value
  for (const std::size_t bytes : second.wire) EXPECT_EQ(bytes, agreement_bytes(3) + 2 * (16 + 1 + 1 + 4));
}

TEST(Gather, WhatDoesNotGoTogetherIsNamed) {
  const auto expect_names = [](const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << part << ": " << text;
  };
  expect_names(refusal({.codec = "topk:ratio=0.01", .algorithm = "two_phase"}),
               {"two_phase", "topk:ratio=0.01", "only as a whole", "gather"});
  expect_names(refusal({.codec = "onebit:deepspeed", .algorithm = "gather"}),
               {"gather", "onebit:deepspeed", "algorithm deepspeed"});
  expect_names(refusal({.codec = "topk:ratio=0.01", .algorithm = "deepspeed"}), {"deepspeed", "gather"});
  expect_names(refusal({.codec = "onebit:scale=rms", .algorithm = "gather"}),
               {"gather", "scale=rms", "residuals"});
  EXPECT_EQ(refusal({.codec = "topk:ratio=0.01,block=64", .algorithm = "two_phase"}), "");

  // a rank that goes another way is told so, and encoding is taken back
  Rig rig(by_gather({.ranks = 3, .count = 500, .codec = "topk:ratio=0.1,block=20"}));
  const auto inputs = normal_inputs(rig, 1);
  const auto result = rig.call(inputs, {}, [](int rank, Call& call) {
    if (rank == 1) call.algorithm = &find_algorithm("two_phase");
  });
  for (const std::string& error : result.errors)
    expect_names(error, {"mismatch", "algorithm", "gather", "two_phase", "rank 1"});
  for (const Row& residual : rig.workers()) EXPECT_EQ(residual, Row(500));
  check_call(rig, inputs);
}

/// Elements as they are, but for one that it throws at.
class Fragile final : public Codec {
 public:
  static constexpr float kBad = 666;
  Fragile() : Codec("fragile", "fragile", {}) {}

 private:
  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_max_bytes(std::size_t count, DType dtype) const override { return count * size_of(dtype); }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    for (const double v : doubles_of(values)) {
      if (v == kBad) throw Error(ErrorCode::invalid_state, "not this one");
    }
    std::memcpy(payload.data(), values.data, values.bytes());
    return values.bytes();
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into into, double) const override {
    for (std::size_t i = 0; i < out.count; ++i) {
      float v = 0;
      std::memcpy(&v, payload.data() + i * sizeof v, sizeof v);
      auto& to = static_cast<float*>(out.data)[i];
      to = into == Into::add ? to + v : v;
    }
  }
};

/// A rank whose codec throws says so to all in its message, and all throw what it was.
TEST(Gather, AFailureOfOneRankIsToldToAll) {
  const auto codec = std::make_shared<Fragile>();
  for (const bool checksum : {false, true}) {
    for (const std::size_t bad : {std::size_t{0}, std::size_t{700}}) {
      Rig rig(by_gather(
          {.ranks = 3, .count = 1000, .feedback = false, .segment_bytes = 800, .checksum = checksum}));
      Rig::Matrix inputs = exact_inputs(rig.setting(), 1);
      inputs[1][bad] = Fragile::kBad;
      const auto result = rig.call(inputs, {}, [&](int, Call& call) { call.codec = codec; });
      for (const std::string& error : result.errors) {
        EXPECT_NE(error.find("not this one"), std::string::npos) << error;
        EXPECT_NE(error.find("rank 1"), std::string::npos) << error;
      }
    }
  }
}

/// A hundredth of the elements, at 4 bytes and a distance each.
TEST(Gather, SparseTensorsAreFewBytes) {
  const std::size_t count = std::size_t{1} << 18;
  for (const int ranks : {2, 4}) {
    Rig rig(by_gather({.ranks = ranks, .count = count, .codec = "topk:ratio=0.01"}));
    const auto result = rig.call(normal_inputs(rig, 1));
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    for (const std::size_t bytes : result.wire) {
      EXPECT_LT(static_cast<double>(bytes), (ranks - 1) * 0.0535 * static_cast<double>(count));
    }
  }
}

/// The sum of what was sent is beyond the type's range: infinite on all ranks, as a plain sum is.
TEST(Gather, SumsBeyondTheRangeAreInfinite) {
  Rig rig(
      by_gather({.ranks = 2, .count = 16, .dtype = DType::f16, .op = Op::sum, .codec = "onebit:block=8"}));
  Rig::Matrix inputs(2, Row(16, 100.0));
  for (Row& row : inputs) std::fill_n(row.begin() + 8, 8, -40000.0);
  const auto result = rig.call(inputs);
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(result.out[0][i], i < 8 ? 200.0 : -kInfinity) << i;
}

// What is owed adds up from step to step. Where sums of it would be beyond the range, though those of the
// values are not, pieces are resent uncompressed: no finite input whose sums are finite gives an infinite
// result.
TEST(Gather, WhatSparseCodecsOweDoesNotMakeSumsInfinite) {
  constexpr std::size_t kCount = 50;
  for (const auto& [codec, algorithm] :
       {std::pair("topk:ratio=0.1", "gather"), std::pair("threshold:ratio=0.1", "gather"),
        std::pair("topk:ratio=0.1,block=16", "two_phase"), std::pair("topk:ratio=0.1,block=16", "gather"),
        std::pair("topk:ratio=0.1+cast:bf16", "gather"), std::pair("randomk:ratio=0.1,block=16", "gather"),
        std::pair("randomk:ratio=0.1,block=16", "summed")}) {
    for (const DType dtype : kAllDTypes) {
      for (const Op op : {Op::sum, Op::average}) {
        // kept values in bf16 are for tensors of f32
        if (std::string(codec).ends_with("bf16") && dtype != DType::f32) continue;
        Rig rig(
            {.ranks = 3, .count = kCount, .dtype = dtype, .op = op, .codec = codec, .algorithm = algorithm});
        SCOPED_TRACE(text_of(rig.setting()));
        Rig::Matrix inputs(3, Row(kCount));
        for (std::size_t i = 0; i < kCount; ++i) {
          const double size = largest_finite(dtype) * (i % 2 == 0 ? 0.125 : -0.0625);
          for (auto& row : inputs) row[i] = round_to(size, dtype);
        }
        const auto want = ieee_reduction(rig.setting(), inputs);
        std::size_t resent = 0;
        for (std::uint64_t step = 0; step < 40; ++step) {
          rig.set_call(step);
          const Rig::Result result = rig.call(inputs);
          ASSERT_FALSE(result.failed()) << result.errors[0];
          ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
          const bool whole = result.calls[0].exact_count == kCount;
          resent += result.calls[0].exact_count;
          for (std::size_t i = 0; i < kCount; ++i) {
            ASSERT_TRUE(std::isfinite(result.out[0][i])) << "step " << step << ", element " << i;
            if (whole) {
              ASSERT_EQ(result.out[0][i], want[i]) << "step " << step;
            }
          }
        }
        EXPECT_TRUE(resent > 0 || (dtype == DType::f16 && op == Op::average))
            << "f32 has room for sums of f16";
      }
    }
  }
}

TEST(Gather, SegmentsAndArrivalChangeNothing) {
  for (const char* spec :
       {"onebit:block=64", "cast:bf16", "identity", "topk:ratio=0.02", "topk:ratio=0.05,block=100"}) {
    std::vector<std::byte> first;
    std::uint64_t seed = 0;
    for (const std::size_t segment_bytes :
         {std::size_t{1} << 30, std::size_t{1}, std::size_t{700}, std::size_t{5000}, ~std::size_t{0}}) {
      Rig rig(by_gather({.ranks = 4, .count = 2003, .codec = spec, .segment_bytes = segment_bytes}));
      SCOPED_TRACE(text_of(rig.setting()));
      Rig::Matrix inputs;
      for (int r = 0; r < 4; ++r) inputs.push_back(normal_values(2003, DType::f32, 9, r));
      std::vector<std::byte> all;
      for (int call = 0; call < 2; ++call) {
        const auto result = rig.call(inputs, {.seed = ++seed, .max_delay_us = seed > 5 ? 300 : 0});
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        all.insert(all.end(), result.out[0].bytes().begin(), result.out[0].bytes().end());
      }
      for (int r = 0; r < 4; ++r) {
        const auto residual = bytes_of(rig.feedback(r).worker());
        all.insert(all.end(), residual.begin(), residual.end());
      }
      if (first.empty()) first = all;
      ASSERT_TRUE(all == first);
    }
  }
}

/// A list gives each tensor results bit-identical to those of a call of its own.
TEST(Gather, ListsAreCallsForEach) {
  constexpr int kRanks = 3;
  const std::vector<std::size_t> counts = {5, 0, 130, 64, 1};
  for (const char* spec :
       {"onebit:block=64", "identity", "topk:ratio=0.1", "topk:ratio=0.1,block=16", "threshold:ratio=0.1"}) {
    const auto codec = make_codec(spec);
    for (const bool with_nan : {false, true}) {
      for (const std::size_t segment_bytes : {std::size_t{1}, std::size_t{1} << 20}) {
        std::vector<std::vector<Tensor>> got(kRanks);
        std::vector<std::vector<Tensor>> want(kRanks);
        const auto run = [&](ThreadTransport& transport, std::vector<Tensor>& results, bool as_list) {
          Engine engine(transport);
          std::vector<Feedback> feedbacks(counts.size());
          std::vector<Tensor> tensors;
          for (int step = 0; step < 2; ++step) {
            tensors.clear();
            for (std::size_t t = 0; t < counts.size(); ++t) {
              tensors.emplace_back(normal_values(counts[t], DType::f32, 10 + t, transport.rank()),
                                   DType::f32);
            }
            if (with_nan && step == 0 && transport.rank() == 1) tensors[3].set(63, kNan);
            std::vector<CallTensor> list;
            for (std::size_t t = 0; t < counts.size(); ++t) {
              list.push_back({tensors[t].view(), tensors[t].view(), &feedbacks[t]});
            }
            Call call{.codec = codec, .algorithm = &find_algorithm("gather"), .op = Op::average};
            call.segment_bytes = segment_bytes;
            if (as_list) {
              call.tensors = list;
              engine.run(call);
              continue;
            }
            for (const CallTensor& one : list) {
              call.in = one.in;
              call.out = one.out;
              call.feedback = one.feedback;
              engine.run(call);
            }
          }
          results = tensors;
        };
        run_ranks(kRanks, [&](ThreadTransport& transport) {
          const auto r = static_cast<std::size_t>(transport.rank());
          run(transport, got[r], true);
          run(transport, want[r], false);
        });
        for (std::size_t r = 0; r < kRanks; ++r) {
          for (std::size_t t = 0; t < counts.size(); ++t) {
            // what shares a flagged piece is resent uncompressed with it
            if (with_nan && (segment_bytes > 1 || codec->traits().whole_tensor)) continue;
            EXPECT_TRUE(got[r][t].same_bits(want[r][t])) << spec << ", rank " << r << ", tensor " << t;
          }
          for (std::size_t t = 0; t < counts.size(); ++t) EXPECT_TRUE(got[r][t].same_bits(got[0][t]));
        }
      }
    }
  }
}

/// A codec's state outlives calls, saves and loads, as residuals do; calls on a tensor are what they are
/// without a stop.
TEST(Gather, StatesOfCodecsArePartOfAFeedback) {
  const Setting s{.ranks = 2, .count = 5000, .codec = "threshold:ratio=0.01,reuse=4", .algorithm = "gather"};
  Rig going(s);
  Rig stopped(s);
  Rig anew({.ranks = 2, .count = 5000, .codec = "threshold:ratio=0.01,reuse=1", .algorithm = "gather"});
  bool differs = false;
  for (std::uint64_t step = 1; step <= 9; ++step) {
    const auto inputs = normal_inputs(going, step);
    const auto one = going.call(inputs);
    for (int r = 0; r < 2; ++r) {
      const auto saved = stopped.feedback(r).save();
      stopped.feedback(r).reset();
      stopped.feedback(r).load(std::span<const std::byte>(saved));
    }
    const auto other = stopped.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(one));
    EXPECT_TRUE(one.out[0].same_bits(other.out[0])) << step;
    EXPECT_EQ(going.workers(), stopped.workers());
    differs = differs || !anew.call(inputs).out[0].same_bits(one.out[0]);
  }
  EXPECT_TRUE(differs) << "a threshold that is found in each call is another one";
  // a call that is refused changes none
  const auto before = state_of(going.feedback(0)).codec_state;
  EXPECT_NE(before, std::vector<std::byte>(before.size()));
  const auto refused =
      going.call(normal_inputs(going, 10), {}, [](int r, Call& call) { call.checksum = r == 1; });
  EXPECT_TRUE(refused.failed());
  EXPECT_EQ(state_of(going.feedback(0)).codec_state, before);
}

/// What is owed is the mean of the residuals. On other numbers of ranks each owes that.
TEST(Gather, ResidualsGoToOtherNumbersOfRanks) {
  for (const ResidualType residual : {ResidualType::full, ResidualType::bf16}) {
    for (const auto& [from, to] : {std::pair{3, 2}, std::pair{2, 5}, std::pair{4, 1}}) {
      Setting s = by_gather({.ranks = from, .count = 200, .codec = "onebit:block=64", .residual = residual});
      Rig old(s);
      check_call(old, normal_inputs(old, 1));
      std::vector<std::vector<std::byte>> saves;
      Row owed(s.count);
      for (int r = 0; r < from; ++r) saves.push_back(old.feedback(r).save());
      for (const Row& worker : old.workers()) {
        for (std::size_t i = 0; i < s.count; ++i) owed[i] += worker[i] / from;
      }
      s.ranks = to;
      s.op = Op::average;
      Rig next(s);
      for (int r = 0; r < to; ++r) next.feedback(r).load(saves);
      const auto result = next.call(Rig::Matrix(static_cast<std::size_t>(to), Row(s.count)));
      ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
      // out + mean e = what was owed
      for (std::size_t i = 0; i < s.count; ++i) {
        double left = result.out[0][i];
        for (const Row& e : next.workers()) left += e[i] / to;
        const double slack = residual == ResidualType::full ? 1e-6 : 0.02;
        ASSERT_NEAR(left, owed[i], slack) << from << " to " << to << ", element " << i;
      }
    }
  }
}

/// Ranks draw apart, and the same again.
TEST(Gather, RandomNumbersAreEachRanks) {
  constexpr std::size_t kCount = 4096;
  constexpr int kParties = 8;
  const Rig::Matrix inputs(kParties, normal_values(kCount, DType::f32, 1, 0));
  const auto result_of = [&](int ranks) {
    Rig rig({.ranks = ranks,
             .count = kCount,
             .codec = "quant:bits=4,rounding=stochastic",
             .algorithm = "gather",
             .feedback = false,
             .segment_bytes = 4096});
    const Rig::Matrix own(inputs.begin(), inputs.begin() + ranks);
    return rig.call(own).out[0].doubles();
  };
  const auto error_of = [&](const std::vector<double>& out) {
    double error = 0;
    for (std::size_t i = 0; i < kCount; ++i) error += std::pow(out[i] - inputs[0][i], 2);
    return error;
  };
  const auto one = result_of(1);
  const auto all = result_of(kParties);
  EXPECT_EQ(all, result_of(kParties));
  // errors of ranks that draw apart average out
  EXPECT_NEAR(error_of(all) / error_of(one), 1.0 / kParties, 0.02);
}

}  // namespace
}  // namespace terse::test
