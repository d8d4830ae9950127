// SPDX-License-Identifier: Apache-2.0
//
// Many calls under way at once: started in one order, ended in any, each as if it had been alone.
#include "collective/engine.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/tensor.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

/// A tensor that is reduced again and again.
struct Stream {
  std::string codec;
  std::string algorithm;
  std::size_t count;
  DType dtype = DType::f32;
  Op op = Op::average;
  bool checksum = false;
  bool agree = true;
  bool with_nan = false;    ///< now and then
  bool mismatched = false;  ///< now and then one rank has another operation
  bool feedback = true;     ///< not after an error, from which residuals return to rounding
};

std::vector<Stream> streams() {
  return {{.codec = "onebit:block=64", .algorithm = "two_phase", .count = 3000},
          {.codec = "identity", .algorithm = "exact", .count = 300, .op = Op::sum},
          {.codec = "onebit:block=64", .algorithm = "two_phase", .count = 1000, .with_nan = true},
          {.codec = "cast:bf16", .algorithm = "two_phase", .count = 777, .checksum = true},
          {.codec = "identity", .algorithm = "exact", .count = 5, .agree = false},
          {.codec = "onebit:block=8",
           .algorithm = "two_phase",
           .count = 500,
           .mismatched = true,
           .feedback = false},
          {.codec = "identity", .algorithm = "exact", .count = 64, .dtype = DType::f64, .mismatched = true},
          {.codec = "onebit:deepspeed", .algorithm = "deepspeed", .count = 1234, .op = Op::sum}};
}

bool is_due(bool wanted, std::uint64_t round, std::size_t stream) {
  return wanted && (round + stream) % 7 == 3;
}

/// One rank's side of all streams, for a world of calls.
class Party {
 public:
  Party(Transport& transport, const Engine::Options& options)
      : transport_(transport), engine_(transport, options), feedbacks_(streams().size()) {
    for (const Stream& s : streams()) codecs_.push_back(make_codec(s.codec));
  }

  struct Outcome {
    std::vector<std::byte> out;
    std::string error;
    bool operator==(const Outcome&) const = default;
  };

  /// Begins all calls of a round and ends them in an order of this rank's own.
  std::vector<Outcome> round(std::uint64_t number, std::uint64_t seed, bool one_by_one) {
    const auto all = streams();
    std::vector<Tensor> in(all.size());
    std::vector<Tensor> out(all.size());
    std::vector<Execution*> under_way(all.size());
    std::vector<Outcome> outcomes(all.size());
    std::mt19937_64 random(seed * 77 + static_cast<std::uint64_t>(transport_.rank()));
    const auto end = [&](std::size_t k) {
      try {
        engine_.finish(*under_way[k]);
      } catch (const Error& error) {
        outcomes[k].error = error.what();
      }
      under_way[k] = nullptr;
      EXPECT_TRUE(out[k].guards_intact());
      const auto* bytes = static_cast<const std::byte*>(out[k].view().data);
      outcomes[k].out.assign(bytes, bytes + out[k].view().bytes());
    };
    for (std::size_t k = 0; k < all.size(); ++k) {
      const Stream& s = all[k];
      in[k] = Tensor(exact_values(s.count, s.dtype, number * 31 + k, transport_.rank()), s.dtype);
      out[k] = Tensor(s.count, s.dtype);
      if (is_due(s.with_nan, number, k) && transport_.rank() == 0) in[k].set(number % s.count, std::nan(""));
      Call call;
      call.in = std::as_const(in[k]).view();
      call.out = out[k].view();
      call.codec = codecs_[k];
      call.algorithm = &find_algorithm(s.algorithm);
      call.op = s.op;
      call.feedback = s.feedback ? &feedbacks_[k] : nullptr;
      call.segment_bytes = 2000;
      call.checksum = s.checksum;
      call.agree = s.agree;
      if (is_due(s.mismatched, number, k) && transport_.rank() == transport_.size() - 1) {
        call.op = s.op == Op::sum ? Op::average : Op::sum;
      }
      under_way[k] = &engine_.start(call);
      if (one_by_one) {
        end(k);
      } else if (random() % 3 == 0) {
        engine_.test(*under_way[random() % (k + 1)]);
      }
    }
    std::vector<std::size_t> order(all.size());
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t k : order) {
      if (!under_way[k]) continue;
      for (std::uint64_t tries = random() % 4; tries > 0 && !engine_.test(*under_way[k]); --tries) {
      }
      end(k);
    }
    EXPECT_EQ(engine_.under_way(), 0u);
    return outcomes;
  }

  std::size_t scratch_bytes() const { return engine_.scratch_bytes(); }

 private:
  Transport& transport_;
  Engine engine_;
  std::vector<Feedback> feedbacks_;
  std::vector<std::shared_ptr<const Codec>> codecs_;
};

using Outcomes = std::vector<std::vector<std::vector<Party::Outcome>>>;  // [rank][round][stream]

Outcomes run_rounds(int ranks, std::uint64_t rounds, const Engine::Options& options, bool one_by_one,
                    std::uint64_t seed, std::size_t& scratch) {
  Outcomes outcomes(static_cast<std::size_t>(ranks));
  run_ranks(ranks,
            [&](ThreadTransport& transport) {
              Party party(transport, options);
              auto& mine = outcomes[static_cast<std::size_t>(transport.rank())];
              for (std::uint64_t round = 0; round < rounds; ++round) {
                mine.push_back(party.round(round, seed + round, one_by_one));
              }
              if (transport.rank() == 0) scratch = party.scratch_bytes();
              EXPECT_EQ(transport.in_flight(), 0u);
            },
            {.seed = seed});
  return outcomes;
}

void expect_as_alone(int ranks, std::uint64_t rounds, const Engine::Options& options) {
  std::size_t scratch_of_one = 0;
  std::size_t scratch_of_all = 0;
  const Outcomes alone = run_rounds(ranks, rounds, {}, true, 1, scratch_of_one);
  const Outcomes together = run_rounds(ranks, rounds, options, false, 2, scratch_of_all);
  EXPECT_LE(scratch_of_all, streams().size() * scratch_of_one);
  std::size_t errors = 0;
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t k = 0; k < streams().size(); ++k) {
      for (std::size_t r = 0; r < together.size(); ++r) {
        const Party::Outcome& got = together[r][round][k];
        ASSERT_EQ(got.error, alone[r][round][k].error)
            << "rank " << r << ", round " << round << ", stream " << k;
        ASSERT_EQ(got.error, together[0][round][k].error) << "not one sentence";
        ASSERT_EQ(got, alone[r][round][k]) << "rank " << r << ", round " << round << ", stream " << k;
        const bool due = is_due(streams()[k].mismatched, round, k) && ranks > 1;
        ASSERT_EQ(got.error.empty(), !due) << got.error;
        if (due) {
          ++errors;
          ASSERT_NE(got.error.find("op is"), std::string::npos) << got.error;
        } else if (!is_due(streams()[k].with_nan, round, k)) {
          ASSERT_EQ(got.out, together[0][round][k].out) << "ranks differ";
        }
      }
    }
  }
  EXPECT_TRUE(errors > 0 || ranks == 1);
}

TEST(Engine, AThousandRoundsOfEightCallsEndInAnyOrder) { expect_as_alone(3, kSanitized ? 100 : 1000, {}); }

TEST(Engine, OnAnyNumberOfRanks) {
  for (const int ranks : thinned({1, 2, 4, 5, 7, 8})) {
    SCOPED_TRACE(ranks);
    expect_as_alone(ranks, 30, {});
    if (HasFatalFailure()) return;
  }
}

TEST(Engine, WithThreadsThatCompute) {
  for (const std::size_t threads : {2u, 4u}) expect_as_alone(3, 60, {.threads = threads});
}

TEST(Engine, WithAThreadThatMakesProgress) {
  expect_as_alone(3, 100, {.progress = Engine::Progress::thread});
  expect_as_alone(2, 60, {.threads = 2, .progress = Engine::Progress::thread});
}

/// A thread makes progress although nobody calls.
TEST(Engine, TheProgressThreadNeedsNobody) {
  run_ranks(3, [](ThreadTransport& transport) {
    Engine engine(transport, {.progress = Engine::Progress::thread});
    std::vector<float> data(5000, 1.0f);
    Call call;
    call.in = call.out = view(data);
    call.codec = make_codec("onebit:block=64");
    call.algorithm = &find_algorithm("two_phase");
    call.segment_bytes = 3000;
    Execution& execution = engine.start(call);
    while (!engine.test(execution)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    engine.finish(execution);
    EXPECT_EQ(data, std::vector<float>(5000, 3.0f));
  });
}

/// What is said of the scratch: 12 messages a rank of a segment, and a word of every rank.
TEST(Engine, ScratchIsBounded) {
  for (const int ranks : {2, 3, 8}) {
    run_ranks(ranks, [&](ThreadTransport& transport) {
      Engine engine(transport);
      const auto codec = make_codec("onebit:block=64");
      constexpr std::size_t kSegment = 64 << 10;
      std::vector<float> data(kSanitized ? 1 << 18 : 1 << 20, 1.0f);
      Call call;
      call.in = call.out = view(data);
      call.codec = codec;
      call.algorithm = &find_algorithm("two_phase");
      call.segment_bytes = kSegment;
      engine.run(call);
      const auto parties = static_cast<std::size_t>(ranks);
      const std::size_t message = codec->max_bytes(kSegment / sizeof(float) / parties, DType::f32) + 8 + 63;
      EXPECT_LE(engine.scratch_bytes(), 12 * parties * message + 1024 * parties);
      const std::size_t before = engine.scratch_bytes();
      for (int i = 0; i < 5; ++i) engine.run(call);
      EXPECT_EQ(engine.scratch_bytes(), before);
    });
  }
}

// --- lists of tensors

/// Results and residuals of one call for all tensors and of one call for each are the same bits.
void check_list(int ranks, const std::vector<std::size_t>& counts, const std::string& codec, DType dtype,
                Op op, bool in_place, bool feedback, std::size_t segment_bytes) {
  SCOPED_TRACE(codec + " " + std::string(name(dtype)) + " on " + std::to_string(ranks) + " ranks, " +
               std::to_string(counts.size()) + " tensors, segments of " + std::to_string(segment_bytes));
  run_ranks(ranks, [&](ThreadTransport& transport) {
    Engine engine(transport);
    std::vector<Feedback> apart(counts.size());
    std::vector<Feedback> together(counts.size());
    for (std::uint64_t step = 1; step <= 3; ++step) {
      std::vector<Tensor> in;
      std::vector<Tensor> out;
      std::vector<Tensor> want;
      for (std::size_t t = 0; t < counts.size(); ++t) {
        in.emplace_back(normal_values(counts[t], dtype, step * 100 + t, transport.rank()), dtype, t % 3);
        out.emplace_back(counts[t], dtype, t % 2);
        want.emplace_back(counts[t], dtype);
      }
      Call call;
      call.codec = make_codec(codec);
      call.algorithm = &find_algorithm("two_phase");
      call.op = op;
      call.segment_bytes = segment_bytes;
      std::size_t bytes_apart = 0;
      for (std::size_t t = 0; t < counts.size(); ++t) {
        call.in = std::as_const(in[t]).view();
        call.out = want[t].view();
        call.feedback = feedback ? &apart[t] : nullptr;
        bytes_apart += engine.run(call).bytes_sent;
      }
      call.in = call.out = {};
      call.feedback = nullptr;
      std::vector<CallTensor> list;
      for (std::size_t t = 0; t < counts.size(); ++t) {
        list.push_back({std::as_const(in[t]).view(), in_place ? in[t].view() : out[t].view(),
                        feedback ? &together[t] : nullptr});
      }
      call.tensors = list;
      const CallResult result = engine.run(call);
      EXPECT_EQ(result.exact_count, 0u);
      if (counts.size() > 2 && ranks > 1) {
        EXPECT_LT(result.bytes_sent, bytes_apart);
      }
      for (std::size_t t = 0; t < counts.size(); ++t) {
        const Tensor& got = in_place ? in[t] : out[t];
        EXPECT_TRUE(got.guards_intact());
        ASSERT_EQ(got.doubles(), want[t].doubles())
            << "tensor " << t << " of " << counts[t] << ", step " << step;
        if (feedback) {
          ASSERT_EQ(doubles_of(together[t].worker()), doubles_of(apart[t].worker())) << "tensor " << t;
        }
      }
    }
  });
}

TEST(Lists, AreWhatTheirTensorsAreAlone) {
  const std::vector<std::vector<std::size_t>> lists = {{0},
                                                       {1},
                                                       {64},
                                                       {64, 64},
                                                       {63, 65, 1},
                                                       {0, 0, 0},
                                                       {0, 100, 0, 7, 0},
                                                       {1, 1, 1, 1, 1, 1, 1, 1, 1},
                                                       {5000, 3, 129},
                                                       {200, 1000, 64, 63, 128, 999, 0, 2, 777}};
  std::uint64_t turn = 0;
  for (const int ranks : thinned({1, 2, 3, 5, 8})) {
    for (const auto& list : lists) {
      for (const char* codec : {"onebit:block=64", "identity", "cast:bf16", "onebit:block=24"}) {
        ++turn;
        if (kSanitized && (turn + turn / 4 + turn / 40) % 4 != 0) continue;  // the next list's turn
        const DType dtype = turn % 4 == 0 ? DType::bf16 : turn % 4 == 1 ? DType::f16 : DType::f32;
        check_list(ranks, list, codec, std::string(codec) == "cast:bf16" ? DType::f32 : dtype,
                   turn % 2 == 0 ? Op::sum : Op::average, turn % 3 == 0, turn % 5 != 0,
                   turn % 2 == 0 ? 1 : 3000);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Lists, FlaggedPiecesComeOutExactly) {
  run_ranks(3, [](ThreadTransport& transport) {
    Engine engine(transport);
    std::vector<Feedback> feedbacks(3);
    std::vector<std::vector<float>> data = {std::vector<float>(100, 1), std::vector<float>(70, 2),
                                            std::vector<float>(300, 3)};
    if (transport.rank() == 1) data[1][69] = std::numeric_limits<float>::infinity();
    std::vector<CallTensor> list;
    for (std::size_t t = 0; t < 3; ++t) list.push_back({view(data[t]), view(data[t]), &feedbacks[t]});
    Call call;
    call.codec = make_codec("onebit:block=8");
    call.algorithm = &find_algorithm("two_phase");
    call.op = Op::average;
    call.segment_bytes = 1;
    call.tensors = list;
    const CallResult result = engine.run(call);
    EXPECT_EQ(result.exact_count, 6u) << "the last block of the second tensor";
    EXPECT_EQ(data[0], std::vector<float>(100, 1));
    EXPECT_EQ(data[1][69], std::numeric_limits<float>::infinity());
    EXPECT_EQ(data[1][68], 2.0f);
    EXPECT_EQ(data[2], std::vector<float>(300, 3));
    for (const Feedback& f : feedbacks) {
      for (const double e : doubles_of(f.worker())) EXPECT_EQ(e, 0.0);
    }
  });
}

/// Exact lists are one reduction.
TEST(Lists, GoExactlyInOneReduction) {
  for (const Op op : {Op::sum, Op::average}) {
    run_ranks(4, [&](ThreadTransport& transport) {
      Engine engine(transport);
      std::vector<float> a(10, 1.0f + static_cast<float>(transport.rank()));
      std::vector<float> b;
      std::vector<float> c(3, 4.0f);
      std::vector<float> out(10, -1.0f);
      const std::vector<CallTensor> list = {{view(a), view(out)}, {view(b), view(b)}, {view(c), view(c)}};
      Call call;
      call.codec = make_codec("identity");
      call.algorithm = &find_algorithm("exact");
      call.op = op;
      call.tensors = list;
      engine.run(call);
      EXPECT_EQ(out, std::vector<float>(10, op == Op::sum ? 10.0f : 2.5f));
      EXPECT_EQ(c, std::vector<float>(3, op == Op::sum ? 16.0f : 4.0f));
      EXPECT_EQ(a[0], 1.0f + static_cast<float>(transport.rank()));
    });
  }
}

TEST(Lists, ThatDifferAreAnErrorOnAllRanks) {
  for (const int kind : {0, 1, 2, 3}) {
    std::array<std::string, 3> errors;
    run_ranks(3, [&](ThreadTransport& transport) {
      Engine engine(transport);
      const bool odd = transport.rank() == 2;
      std::vector<float> a(odd && kind == 0 ? 99 : 100, 1.0f);
      std::vector<float> b(odd && kind == 0 ? 101 : 100, 1.0f);
      Feedback residual;
      std::vector<CallTensor> list = {{view(a), view(a)}, {view(b), view(b)}};
      if (odd && kind == 1) list[1].feedback = &residual;
      if (odd && kind == 2) list.push_back({View{}, View{}});
      Call call;
      call.codec = make_codec("onebit:block=8");
      call.algorithm = &find_algorithm("two_phase");
      call.tensors = list;
      if (odd && kind == 3) list[0].feedback = list[1].feedback = &residual;
      try {
        engine.run(call);
      } catch (const Error& error) {
        errors[static_cast<std::size_t>(transport.rank())] = error.what();
      }
      EXPECT_EQ(a[0], 1.0f);
    });
    const std::array<const char*, 4> named = {"tensor 0", "tensor 1", "tensors", "in use by another call"};
    EXPECT_NE(errors[0].find(named[static_cast<std::size_t>(kind)]), std::string::npos) << errors[0];
    EXPECT_EQ(errors[0], errors[1]);
    EXPECT_EQ(errors[0], errors[2]);
  }
}

TEST(Lists, OfCodecsForWholeTensorsAreRefused) {
  const auto codec = make_codec("onebit:deepspeed");
  Pairing pairing{.algorithm = find_algorithm("deepspeed"), .codec = *codec, .ranks = 2};
  EXPECT_NO_THROW(check_pair(pairing));
  pairing.list = true;
  try {
    check_pair(pairing);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported);
    EXPECT_NE(std::string(error.what()).find("one tensor a call"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace terse::test
