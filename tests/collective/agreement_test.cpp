// SPDX-License-Identifier: Apache-2.0
//
// Ranks that do not make the same call: every rank throws the same sentence, which names both sides; nothing
// hangs, nothing is written, and the next call works.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

/// How one rank differs, and what the sentence must name beside that rank.
struct Spoiler {
  std::string name;
  std::string code;
  std::vector<std::string> named;
  std::function<void(Call&)> spoil;
  /// With a Feedback that belongs to a tensor already, some are found out without asking the others.
  std::string code_if_bound = {};
};

std::vector<Spoiler> spoilers() {
  static const auto other_codec = make_codec("onebit:block=128");
  static const auto third_codec = make_codec("identity");
  static Feedback fresh[16];
  return {
      {"count",
       "mismatch",
       {"count", "1000", "999"},
       [](Call& c) {
         c.in = c.in.slice(0, 999);
         c.out = c.out.slice(0, 999);
       },
       "invalid_state"},
      {"dtype",
       "mismatch",
       {"dtype", "f32", "bf16"},
       [](Call& c) { c.in.dtype = c.out.dtype = DType::bf16; },
       "invalid_state"},
      {"op", "mismatch", {"op", "average", "sum"}, [](Call& c) { c.op = Op::sum; }},
      {"codec",
       "mismatch",
       {"codec", "block=64", "block=128"},
       [](Call& c) { c.codec = other_codec; },
       "invalid_state"},
      {"other codec", "mismatch", {"codec", "onebit", "identity"}, [](Call& c) { c.codec = third_codec; }},
      {"algorithm",
       "mismatch",
       {"algorithm", "two_phase", "exact"},
       [](Call& c) { c.algorithm = &find_algorithm("exact"); }},
      {"segment_bytes",
       "mismatch",
       {"segment_bytes", "3000", "4000"},
       [](Call& c) { c.segment_bytes = 4000; }},
      {"no feedback", "mismatch", {"feedback"}, [](Call& c) { c.feedback = nullptr; }},
      {"fresh feedback",
       "mismatch",
       {"feedback"},
       [](Call& c) {
         static int next = 0;
         c.feedback = &fresh[next++ % 16];
         c.feedback->reset();
       }},
      {"checksum", "mismatch", {"checksum"}, [](Call& c) { c.checksum = !c.checksum; }},
      {"a term of the caller's",
       "mismatch",
       {"tensor", "none", "weights"},
       [](Call& c) {
         static constexpr std::array<Term, 2> kTerms = {{{"algorithm", "two_phase"}, {"tensor", "weights"}}};
         c.terms = kTerms;
       }},
      {"failure",
       "invalid_argument",
       {"the input is a null pointer here"},
       [](Call& c) { c.failure = Error(ErrorCode::invalid_argument, "the input is a null pointer here"); }},
      {"out of memory",
       "out_of_memory",
       {"no memory today"},
       [](Call& c) { c.failure = Error(ErrorCode::out_of_memory, "no memory today"); }},
  };
}

/// Whether a sentence names a rank: "rank 2" or "ranks 0-2" and the like.
bool names_rank(const std::string& text, int rank) {
  const std::string digits = std::to_string(rank);
  return text.find("rank " + digits) != std::string::npos ||
         (text.find("ranks ") != std::string::npos && text.find(digits) != std::string::npos);
}

void check_spoiled(const Spoiler& spoiler, int ranks, int culprit, bool bound, std::uint64_t seed) {
  const bool in_place = seed % 3 == 0;
  Setting setting{.ranks = ranks, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 3000};
  setting.in_place = in_place;
  setting.checksum = seed % 2 == 0;
  setting.style = style_of(seed);
  Rig rig(setting);
  SCOPED_TRACE(spoiler.name + " on rank " + std::to_string(culprit) + " of " + std::to_string(ranks) +
               (bound ? ", after a call" : ""));
  const std::string code = bound && !spoiler.code_if_bound.empty() ? spoiler.code_if_bound : spoiler.code;
  const auto before = normal_inputs(rig, seed);
  const auto during = [&] {
    Rig::Matrix m;
    for (int r = 0; r < ranks; ++r) m.push_back(normal_values(1000, DType::f32, seed + 50, r));
    return m;
  }();
  Rig::Result first = rig.empty_result();
  Rig::Result spoiled = rig.empty_result();
  Rig::Result after = rig.empty_result();
  Rig::Matrix workers;
  Rig::Matrix servers;
  Rig::Matrix late;
  SerialModel model = model_of(rig);
  // one world throughout: what is left on the way would meet the next call
  const auto errors = try_ranks(ranks,
                                [&](ThreadTransport& t) {
                                  const auto at_rest = [&] {
                                    std::uint64_t none = 0;
                                    max_of_ranks(t, {&none, 1});
                                  };
                                  if (bound) rig.call_on(t, before, first);
                                  at_rest();
                                  if (t.rank() == 0) {
                                    workers = rig.workers();
                                    servers = rig.servers();
                                  }
                                  at_rest();
                                  rig.call_on(t, during, spoiled, [&](int rank, Call& call) {
                                    if (rank == culprit) spoiler.spoil(call);
                                  });
                                  EXPECT_EQ(t.in_flight(), 0u) << "operations were left behind";
                                  at_rest();
                                  if (t.rank() == 0) {
                                    late = normal_inputs(rig, seed + 1);
                                    model = model_of(rig);
                                  }
                                  at_rest();
                                  rig.call_on(t, late, after);
                                },
                                {.seed = seed, .patience_s = 20});
  for (const auto& error : errors) ASSERT_EQ(sentence_of(error), "");

  const std::string& sentence = spoiled.errors[0];
  for (int r = 0; r < ranks; ++r) {
    const auto at = static_cast<std::size_t>(r);
    ASSERT_EQ(spoiled.errors[at], sentence) << "rank " << r << " says something else than rank 0";
    // outputs untouched (in place: the input as it was)
    for (std::size_t i = 0; i < setting.count; ++i) {
      ASSERT_EQ(spoiled.out[at][i], in_place ? during[at][i] : -77.0) << "rank " << r << " element " << i;
    }
  }
  EXPECT_EQ(sentence.substr(0, code.size() + 1), code + ":") << sentence;
  if (code == spoiler.code) {
    for (const std::string& part : spoiler.named) {
      EXPECT_NE(sentence.find(part), std::string::npos) << part << " is not in: " << sentence;
    }
  }
  EXPECT_TRUE(names_rank(sentence, culprit)) << sentence;
  for (int r = 0; r < ranks && ranks <= 3 && code == "mismatch"; ++r) {
    EXPECT_TRUE(names_rank(sentence, r)) << "rank " << r << " is not in: " << sentence;
  }
  // residuals as before, to rounding: the model that was set up just after says so too
  const double slack = 16 * unit_roundoff(DType::f32);
  for (std::size_t r = 0; r < workers.size(); ++r) {
    for (std::size_t i = 0; i < setting.count; ++i)
      ASSERT_NEAR(model.worker()[r][i], workers[r][i], slack) << i;
    for (std::size_t k = 0; k < servers[r].size(); ++k) ASSERT_EQ(model.server()[r][k], servers[r][k]) << k;
  }
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(after));
  expect_as_model(rig, model, late, after);
  for (int r = 0; r < ranks; ++r)
    EXPECT_EQ(rig.feedback(r).calls(), bound ? 2u : 1u) << "a call that failed is no call";
}

TEST(Agreement, EveryDifferenceIsAnErrorOnAllRanks) {
  std::uint64_t seed = 0;
  for (const Spoiler& spoiler : spoilers()) {
    for (const int ranks : thinned({2, 3, 5, 8})) {
      for (const int culprit : {0, ranks / 2, ranks - 1}) {
        for (const bool bound : {true, false}) {
          if (!bound && spoiler.name == "fresh feedback") continue;
          check_spoiled(spoiler, ranks, culprit, bound, ++seed);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Agreement, TwoFailuresAreBothNamed) {
  Rig rig({.ranks = 4, .count = 100});
  const auto result = rig.call(exact_inputs(rig.setting(), 1), {}, [](int rank, Call& call) {
    if (rank == 1) call.failure = Error(ErrorCode::invalid_argument, "buffer one is bad");
    if (rank == 3) call.failure = Error(ErrorCode::invalid_argument, "buffer three is bad");
  });
  for (const std::string& error : result.errors) {
    EXPECT_EQ(error, result.errors[0]);
    for (const char* part : {"rank 1", "rank 3", "buffer one is bad", "buffer three is bad"}) {
      EXPECT_NE(error.find(part), std::string::npos) << part << " is not in: " << error;
    }
  }
}

/// What a rank finds out while it prepares: a Feedback that belongs to another tensor.
TEST(Agreement, AForeignFeedbackOnOneRankFailsEverywhere) {
  Rig other({.ranks = 3, .count = 64, .codec = "onebit:block=64"});
  other.call(exact_inputs(other.setting(), 1));
  Rig rig({.ranks = 3, .count = 1000, .codec = "onebit:block=64"});
  const auto kept = other.workers();
  const auto result = rig.call(exact_inputs(rig.setting(), 1), {}, [&](int rank, Call& call) {
    if (rank == 2) call.feedback = &other.feedback(2);
  });
  for (const std::string& error : result.errors) {
    EXPECT_EQ(error, result.errors[0]);
    EXPECT_EQ(error.substr(0, 14), "invalid_state:") << error;
    for (const char* part : {"rank 2", "64", "1000"}) EXPECT_NE(error.find(part), std::string::npos) << error;
  }
  EXPECT_EQ(other.workers(), kept);
  // the ranks that were right may use their Feedback for anything still
  EXPECT_EQ(rig.feedback(0).calls(), 0u);
  check_call(rig, normal_inputs(rig, 2));
}

/// All ranks alike, yet the codec cannot do it.
TEST(Agreement, WhatACodecCannotDoIsRefusedByName) {
  for (const DType dtype : {DType::f64, DType::f16, DType::bf16}) {
    Rig rig({.ranks = 3, .count = 10, .dtype = dtype, .codec = "cast:f16"});
    const auto result = rig.call(exact_inputs(rig.setting(), 1));
    for (const std::string& error : result.errors) {
      EXPECT_EQ(error.substr(0, 12), "unsupported:") << error;
      EXPECT_NE(error.find("cast:f16"), std::string::npos) << error;
      EXPECT_NE(error.find(name(dtype)), std::string::npos) << error;
    }
  }
}

/// Feedback with a codec that is no contraction is unsound: the sentence names the codec and the algorithm.
TEST(Agreement, UnsoundPairsAreRefusedByName) {
  for (const char* algorithm : {"two_phase", "gather"}) {
    for (const char* unsound : {"scale=rms", "rounding=stochastic"}) {
      const std::string codec = (unsound[0] == 's' ? "onebit:" : "ternary:") + std::string(unsound);
      Rig rig({.ranks = 2, .count = 10, .codec = codec, .algorithm = algorithm});
      const auto result = rig.call(exact_inputs(rig.setting(), 1));
      for (const std::string& error : result.errors) {
        EXPECT_EQ(error.substr(0, 12), "unsupported:") << error;
        for (const char* part : {unsound, algorithm}) EXPECT_NE(error.find(part), std::string::npos) << error;
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
