// SPDX-License-Identifier: Apache-2.0
//
// two_phase: longer tensors, many steps, segments, the order of arrival. See conformance_test.cpp for the
// breadth.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

const std::vector<int> kRanks = thinned({1, 2, 3, 4, 5, 7, 8});

Rig::Matrix inputs_of(const Rig& rig, std::uint64_t seed) {
  const bool lossy = rig.algorithm().compresses && !rig.codec()->traits().lossless;
  return lossy ? normal_inputs(rig, seed) : exact_inputs(rig.setting(), seed);
}

/// Three calls with feedback for every number of ranks and every count; f32 and f64.
TEST(TwoPhase, RanksAndCounts) {
  for (const int ranks : kRanks) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const std::size_t count :
           thinned({0u, 1u, 2u, 3u, 7u, 8u, 9u, 63u, 64u, 65u, 64u * 8, 64u * 8 + 1, 1009u})) {
        Rig rig({.ranks = ranks,
                 .count = count,
                 .dtype = dtype,
                 .codec = "onebit:block=64",
                 .segment_bytes = 4096});
        SCOPED_TRACE(text_of(rig.setting()));
        for (std::uint64_t step = 1; step <= 3; ++step) {
          check_call(rig, inputs_of(rig, step), {.seed = step});
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(TwoPhase, DefaultBlockAndLargePrime) {
  const std::size_t block = make_codec("onebit")->traits().block;
  const std::size_t prime = kSanitized ? 30011 : 99991;
  for (const int ranks : kRanks) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const std::size_t count : thinned({block - 1, block, block + 1, prime})) {
        Rig rig({.ranks = ranks,
                 .count = count,
                 .dtype = dtype,
                 .in_place = ranks % 2 == 0,
                 .segment_bytes = std::size_t{1} << 16});
        SCOPED_TRACE(text_of(rig.setting()));
        for (std::uint64_t step = 1; step <= 2; ++step) {
          check_call(rig, inputs_of(rig, step), {.seed = step});
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

/// sum_t out_t = sum_t mean_i x_i,t - (mean_i e_i,T + s_T): nothing is lost in the long run either.
TEST(TwoPhase, NothingIsLostOverManySteps) {
  for (const int ranks : thinned({1, 3, 8})) {
    for (const auto& [dtype, op] : {std::pair{DType::f32, Op::average}, std::pair{DType::f32, Op::sum},
                                    std::pair{DType::f64, Op::average}, std::pair{DType::f64, Op::sum},
                                    std::pair{DType::f16, Op::average}, std::pair{DType::f16, Op::sum},
                                    std::pair{DType::bf16, Op::average}, std::pair{DType::bf16, Op::sum}}) {
      Rig rig({.ranks = ranks,
               .count = 777,
               .dtype = dtype,
               .op = op,
               .codec = "onebit:block=64",
               .segment_bytes = 2048});
      SCOPED_TRACE(text_of(rig.setting()));
      const int steps = kSanitized ? 10 : 25;
      std::vector<double> sent(777, 0.0);
      std::vector<double> given(777, 0.0);
      std::vector<double> size(777, 0.0);
      for (int t = 0; t < steps; ++t) {
        Rig::Matrix inputs;
        for (int r = 0; r < ranks; ++r) {
          inputs.push_back(normal_values(777, dtype, 100 + static_cast<std::uint64_t>(t), r));
        }
        const auto result = rig.call(inputs);
        ASSERT_FALSE(result.failed());
        for (std::size_t i = 0; i < 777; ++i) {
          const double out = result.out[0][i] / (op == Op::sum ? ranks : 1);
          sent[i] += out;
          size[i] += std::abs(out);
          for (const auto& input : inputs) given[i] += input[i] / ranks;
          for (const auto& input : inputs) size[i] += std::abs(input[i]) / ranks;
        }
      }
      const auto workers = rig.workers();
      const auto servers = rig.servers();
      const auto chunks = rig.chunks();
      for (std::size_t owner = 0; owner < chunks.size(); ++owner) {
        for (std::size_t k = 0; k < chunks[owner].count; ++k) {
          const std::size_t i = chunks[owner].offset + k;
          double owed = servers[owner][k];
          for (const auto& worker : workers) owed += worker[i] / ranks;
          ASSERT_NEAR(sent[i] + owed, given[i],
                      8 * unit_roundoff(accumulator_of(dtype)) * (size[i] + std::abs(owed)))
              << "element " << i;
          // what is owed stays bounded: feedback with a contraction does not pile up
          ASSERT_LT(std::abs(owed), 12.0) << "element " << i;
        }
      }
    }
  }
}

/// Results and residuals are bit-identical for any segment_bytes.
TEST(TwoPhase, SegmentsChangeNothing) {
  for (const char* spec :
       {"onebit:block=64", "onebit:block=24,scale=rms", "cast:bf16", "identity",
        "quant:rounding=stochastic,block=64", "natural:block=128", "randomk:ratio=0.3,block=64",
        "hadamard:block=128+quant:rounding=stochastic,block=64"}) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const int ranks : thinned({1, 2, 3, 5, 8})) {
        std::vector<std::byte> first;
        for (const std::size_t segment_bytes :
             thinned({std::size_t{1} << 30, std::size_t{1}, std::size_t{700}, std::size_t{5000},
                      std::size_t{20000}, ~std::size_t{0}})) {
          Rig rig({.ranks = ranks,
                   .count = 2003,
                   .dtype = dtype,
                   .codec = spec,
                   .feedback = codec->traits().contractive,
                   .segment_bytes = segment_bytes});
          SCOPED_TRACE(text_of(rig.setting()));
          std::vector<std::byte> all;
          const auto note = [&](std::span<const std::byte> bytes) {
            all.insert(all.end(), bytes.begin(), bytes.end());
          };
          for (std::uint64_t step = 1; step <= 2; ++step) {
            Rig::Matrix inputs;
            for (int r = 0; r < ranks; ++r) inputs.push_back(normal_values(2003, dtype, step, r));
            const auto result = rig.call(inputs, {.seed = segment_bytes});
            ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
            note(result.out[0].bytes());
          }
          for (int r = 0; r < ranks; ++r) {
            for (const ConstView residual : {rig.feedback(r).worker(), rig.feedback(r).server()}) {
              note({static_cast<const std::byte*>(residual.data), residual.bytes()});
            }
          }
          if (first.empty()) first = all;
          ASSERT_TRUE(all == first) << "differs from one segment";
        }
      }
    }
  }
}

/// All ranks send the same elements, and so the owners' sums are sent as they are.
TEST(TwoPhase, RandomkLeavesNothingOfTheSums) {
  Rig rig({.ranks = 3, .count = 2003, .codec = "randomk:ratio=0.2,block=64", .segment_bytes = 2000});
  for (std::uint64_t step = 1; step <= 3; ++step) {
    check_call(rig, normal_inputs(rig, step));
    if (HasFatalFailure()) return;
    for (const auto& server : rig.servers()) {
      for (const double left : server) ASSERT_EQ(left, 0.0);
    }
  }
}

/// The same inputs give the same bits whatever order messages arrive in, at once or late.
TEST(TwoPhase, ArrivalOrderChangesNothing) {
  Tensor first;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Rig rig({.ranks = 4, .count = 3001, .codec = "onebit:block=64", .segment_bytes = 3000});
    Rig::Matrix inputs;
    for (int r = 0; r < 4; ++r) inputs.push_back(normal_values(3001, DType::f32, 9, r));
    Rig::Result result;
    for (int call = 0; call < 2; ++call) {
      result = rig.call(inputs, {.seed = seed, .max_delay_us = seed > 6 ? 300 : 0});
      ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    }
    if (seed == 1) first = result.out[0];
    ASSERT_TRUE(result.out[0].same_bits(first)) << "seed " << seed;
  }
}

/// What several tensors leave in scratch that they share is of no consequence.
TEST(TwoPhase, ManyCallsShareAnEngine) {
  std::vector<Setting> settings;
  for (const std::size_t count : {500u, 20u, 0u, 3000u, 64u}) {
    settings.push_back({.ranks = 3, .count = count, .codec = "onebit:block=64", .segment_bytes = 2000});
    settings.push_back({.ranks = 3, .count = count, .dtype = DType::f64, .op = Op::sum, .codec = "identity"});
  }
  std::vector<Rig> alone;
  std::vector<Rig> together;
  for (const Setting& s : settings) {
    alone.emplace_back(s);
    together.emplace_back(s);
  }
  std::vector<std::vector<Rig::Result>> got(3);
  run_ranks(3, [&](ThreadTransport& transport) {
    Engine engine(transport);
    for (std::uint64_t step = 0; step < 3; ++step) {
      for (std::size_t k = 0; k < together.size(); ++k) {
        Rig& rig = together[k];
        const auto inputs = exact_inputs(rig.setting(), step);
        const auto r = static_cast<std::size_t>(transport.rank());
        Tensor in(inputs[r], rig.setting().dtype);
        Tensor out(rig.setting().count, rig.setting().dtype);
        Call call{.in = in.view(),
                  .out = out.view(),
                  .codec = rig.codec(),
                  .algorithm = &rig.algorithm(),
                  .op = rig.setting().op,
                  .feedback = &rig.feedback(transport.rank()),
                  .segment_bytes = rig.setting().segment_bytes,
                  .failure = {}};
        engine.run(call);
        EXPECT_EQ(transport.in_flight(), 0u);
        Rig::Result one;
        one.out.push_back(std::move(out));
        got[r].push_back(std::move(one));
      }
    }
  });
  std::size_t at = 0;
  for (std::uint64_t step = 0; step < 3; ++step) {
    for (Rig& rig : alone) {
      const auto want = rig.call(exact_inputs(rig.setting(), step));
      for (std::size_t r = 0; r < 3; ++r) {
        ASSERT_TRUE(got[r][at].out[0].same_bits(want.out[r])) << text_of(rig.setting()) << ", step " << step;
      }
      ++at;
    }
  }
}

TEST(TwoPhase, WorksWithoutAgreementToo) {
  Rig rig({.ranks = 4, .count = 1000, .codec = "onebit:block=64"});
  const auto inputs = inputs_of(rig, 1);
  const SerialModel model = model_of(rig);
  const auto result = rig.call(inputs, {}, [](int, Call& call) { call.agree = false; });
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  expect_as_model(rig, model, inputs, result);
}

}  // namespace
}  // namespace terse::test
