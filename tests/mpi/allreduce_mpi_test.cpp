// SPDX-License-Identifier: Apache-2.0
//
// Communicator::allreduce as a user calls it. Threads cover the breadth (collective/two_phase_test.cpp); here
// it goes through the public interface and MPI.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

std::size_t me() { return static_cast<std::size_t>(world_rank()); }

SerialModel::Matrix exact_inputs(std::size_t count, DType dtype, std::uint64_t seed) {
  SerialModel::Matrix inputs;
  for (int r = 0; r < world_size(); ++r) inputs.push_back(exact_values(count, dtype, seed, r));
  return inputs;
}

/// In place or not, with guards, from elements off the boundary.
struct Buffers {
  Tensor in;
  Tensor out;
  bool in_place;

  Buffers(const std::vector<double>& input, DType dtype, bool where)
      : in(input, dtype, 1), out(input.size(), dtype, 3), in_place(where) {}
  Outcome reduce(Communicator& comm, Op op, const CallOptions& options = {}) {
    const Tensor before = in;
    const auto outcome = in_place ? comm.allreduce(in.view(), op, options)
                                  : comm.allreduce({std::as_const(in).view(), out.view()}, op, options);
    EXPECT_TRUE(in_place || in.same_bits(before)) << "the input was changed";
    EXPECT_TRUE(in.guards_intact() && out.guards_intact());
    return outcome;
  }
  Tensor& result() { return in_place ? in : out; }
};

TEST(Allreduce, OnebitIsTheSerialModel) {
  Communicator world(MPI_COMM_WORLD);
  std::uint64_t turn = 0;
  for (const DType dtype : kAllDTypes) {
    for (const std::size_t count : {0u, 1u, 2u, 3u, 7u, 8u, 9u, 63u, 64u, 65u, 5003u}) {
      ++turn;
      const Op op = turn % 2 == 0 ? Op::sum : Op::average;
      Rehearsal rehearsal(world_size(), count, dtype, 64, op);
      Feedback feedback;
      CallOptions options = compressing("onebit:block=64", &feedback);
      options.policy.segment_bytes = 2048;
      if (turn % 5 == 0) options.policy.check = Check::payload;
      SCOPED_TRACE(std::to_string(count) + " " + std::string(name(dtype)) + " " + std::string(name(op)));
      for (std::uint64_t step = 0; step < 3; ++step) {
        const auto inputs = rehearsal.next(turn * 10 + step);
        Buffers buffers(inputs[me()], dtype, turn % 3 == 0);
        const auto outcome = buffers.reduce(world, op, options);
        EXPECT_EQ(outcome.result, Outcome::Result::compressed);
        EXPECT_EQ(outcome.reason, Outcome::Reason::none);
        EXPECT_EQ(outcome.exact_count, 0u);
        ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, buffers.result().bytes()));
        ASSERT_TRUE(rehearsal.agrees(world.rank(), buffers.result(), &feedback)) << "step " << step;
      }
    }
  }
}

/// Each call of a Communicator draws anew; a new one draws the same in turn, whatever trials and exact calls
/// come in between.
TEST(Allreduce, RandomNumbersAreEachCalls) {
  const auto input = normal_values(5003, DType::f32, 7, world_rank());
  const auto results = [&](bool with_others) {
    Communicator world(MPI_COMM_WORLD);
    std::vector<std::vector<double>> all;
    for (int call = 0; call < 3; ++call) {
      Buffers buffers(input, DType::f32, false);
      const auto outcome = buffers.reduce(world, Op::average, compressing("quant:rounding=stochastic"));
      EXPECT_EQ(outcome.result, Outcome::Result::compressed);
      all.push_back(buffers.result().doubles());
      if (!with_others) continue;
      Buffers small({1.0, 2.0}, DType::f32, false);
      small.reduce(world, Op::sum, {.policy = {.codec = "onebit"}});
    }
    return all;
  };
  const auto all = results(false);
  EXPECT_NE(all[0], all[1]);
  EXPECT_NE(all[1], all[2]);
  EXPECT_EQ(all, results(false));
  EXPECT_EQ(all, results(true));
}

TEST(Allreduce, DefaultBlockAndLargePrime) {
  Communicator world(MPI_COMM_WORLD);
  for (const std::size_t count : {2047u, 2048u, 2049u, 99991u}) {
    Rehearsal rehearsal(world_size(), count, DType::f32, 2048, Op::average);
    Feedback feedback;
    const auto inputs = rehearsal.next(count);
    Buffers buffers(inputs[me()], DType::f32, false);
    const auto outcome = buffers.reduce(world, Op::average, compressing("onebit:block=2048", &feedback));
    ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, buffers.result().bytes()));
    ASSERT_TRUE(rehearsal.agrees(world.rank(), buffers.result(), &feedback)) << count;
    if (count == 99991 && world_size() > 1) {
      const double ranks = world_size();
      const double formula = 2 * (ranks - 1) / ranks * static_cast<double>(count) * (1.0 / 8 + 4.0 / 2048);
      EXPECT_NEAR(static_cast<double>(outcome.bytes_sent) / formula, 1.0, 0.10)
          << "chunks are uneven by a block";
    }
  }
}

/// Larger than caches and segments: results go past the caches, from any element on. Inputs are such that
/// nothing is left out.
TEST(Allreduce, TensorsLargerThanCaches) {
  Communicator world(MPI_COMM_WORLD);
  const std::size_t count = 2'500'003;
  std::vector<double> signs(count);
  for (std::size_t i = 0; i < count; ++i) signs[i] = i * i % 7 < 3 ? -1.0 : 1.0;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const bool in_place : {false, true}) {
      Feedback feedback;
      Buffers buffers(signs, dtype, in_place);
      const auto outcome = buffers.reduce(world, Op::average, compressing("onebit", &feedback));
      EXPECT_EQ(outcome.result, Outcome::Result::compressed);
      ASSERT_EQ(buffers.result().doubles() == signs, true) << name(dtype);
      for (const double e : doubles_of(feedback.worker())) ASSERT_EQ(e, 0.0);
    }
  }
}

TEST(Allreduce, EveryCodecGivesTheSameBitsEverywhere) {
  Communicator world(MPI_COMM_WORLD);
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const bool in_place : {false, true}) {
        SCOPED_TRACE(spec + " " + std::string(name(dtype)));
        Feedback feedback;
        const auto inputs = exact_inputs(1003, dtype, 5);
        for (int step = 0; step < 2; ++step) {
          Buffers buffers(inputs[me()], dtype, in_place);
          const bool keeps = codec->traits().contractive || codec->traits().whole_tensor;
          const auto outcome =
              buffers.reduce(world, Op::sum, compressing(codec, keeps ? &feedback : nullptr));
          ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, buffers.result().bytes()));
          if (codec->traits().lossless) {
            EXPECT_EQ(outcome.result, Outcome::Result::exact);
            EXPECT_EQ(outcome.reason, Outcome::Reason::asked);
            EXPECT_EQ(outcome.exact_count, 1003u);
            ASSERT_EQ(buffers.result().doubles() == plain_sum(inputs), true);
          } else {
            EXPECT_EQ(outcome.result, Outcome::Result::compressed);
          }
        }
      }
    }
  }
}

/// Nothing is lossy unless asked for: the default is what MPI_Allreduce gives.
TEST(Allreduce, TheDefaultIsExact) {
  Communicator world(MPI_COMM_WORLD);
  for (const DType dtype : kAllDTypes) {
    for (const Op op : {Op::sum, Op::average}) {
      for (const std::size_t count : {0u, 1u, 1000u, 40000u}) {
        const auto inputs = exact_inputs(count, dtype, 6);
        Buffers buffers(inputs[me()], dtype, count % 3 == 0);
        const auto outcome = buffers.reduce(world, op);
        EXPECT_EQ(outcome.result, Outcome::Result::exact);
        EXPECT_EQ(outcome.reason, Outcome::Reason::asked);
        EXPECT_EQ(outcome.exact_count, count);
        const auto ranks = static_cast<std::size_t>(world_size());
        EXPECT_EQ(outcome.bytes_sent, 2 * (ranks - 1) * count * size_of(dtype) / ranks);
        const auto sum = plain_sum(inputs);
        for (std::size_t i = 0; i < count; ++i) {
          const DType accumulator = accumulator_of(dtype);
          const double want =
              op == Op::sum ? sum[i] : round_to(round_to(sum[i] / world_size(), accumulator), dtype);
          ASSERT_EQ(buffers.result()[i], want) << name(dtype) << " " << i;
        }
      }
    }
  }
  std::vector<float> sum(100, 0.1f * static_cast<float>(world.rank() + 1));
  std::vector<float> want(100);
  MPI_Allreduce(sum.data(), want.data(), 100, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  world.allreduce(view(sum), Op::sum);
  EXPECT_EQ(sum, want);
}

/// 16-bit types, which MPI 3.1 does not know, by plain sums: within a rounding of each addition.
TEST(Allreduce, HalvesByPlainSums) {
  Communicator world(MPI_COMM_WORLD);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    SerialModel::Matrix inputs;
    for (int r = 0; r < world_size(); ++r) inputs.push_back(normal_values(1000, dtype, 8, r));
    Buffers buffers(inputs[me()], dtype, false);
    buffers.reduce(world, Op::sum, {.policy = {.algorithm = "exact"}});
    ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, buffers.result().bytes()));
    const auto want = plain_sum(inputs);
    for (std::size_t i = 0; i < want.size(); ++i) {
      double size = 0;
      for (const auto& input : inputs) size += std::abs(input[i]);
      ASSERT_NEAR(buffers.result()[i], want[i], unit_roundoff(dtype) * world_size() * size) << i;
    }
  }
}

TEST(Outcome, SaysWhyACallWasExact) {
  Communicator world(MPI_COMM_WORLD);
  const auto inputs = exact_inputs(1000, DType::f32, 9);
  const auto reduce = [&](const Policy& policy) {
    Buffers buffers(inputs[me()], DType::f32, false);
    const auto outcome = buffers.reduce(world, Op::sum, {.policy = policy});
    if (outcome.result == Outcome::Result::exact) {
      EXPECT_EQ(buffers.result().doubles() == plain_sum(inputs), true);
      EXPECT_EQ(outcome.exact_count, 1000u);
    }
    const std::string text = std::string(name(outcome.result)) + "/" + std::string(name(outcome.reason));
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, text));
    return text;
  };
  Policy policy{.codec = "onebit", .algorithm = "two_phase", .min_bytes = 4001};
  EXPECT_EQ(reduce(policy), "exact/small");
  policy.min_bytes = 4000;
  EXPECT_EQ(reduce(policy), "compressed/none");
  policy.min_bytes = 0;
  EXPECT_EQ(reduce(policy), "compressed/none");
  policy.algorithm = "exact";
  EXPECT_EQ(reduce(policy), "exact/asked");
  policy = {.codec = "identity", .algorithm = "two_phase"};
  EXPECT_EQ(reduce(policy), "exact/asked");
  policy = {.codec = "onebit", .algorithm = "auto", .min_bytes = 4001};
  EXPECT_EQ(reduce(policy), "exact/small");
  policy.min_bytes = 4000;
  // on one rank nothing is sent, so nothing is left out
  EXPECT_EQ(reduce(policy), world_size() == 1 ? "exact/slower" : "compressed/none");
}

/// auto may decide either way, but all ranks alike, with a reason, and always the same.
TEST(Outcome, AutoDecidesOnceForAllRanks) {
  Communicator world(MPI_COMM_WORLD);
  Feedback feedback;
  std::string first;
  for (int call = 0; call < 5; ++call) {
    std::vector<float> data(100000, 1.0f + static_cast<float>(world.rank()));
    const auto outcome =
        world.allreduce({view(data), &feedback}, Op::average, {.policy = {.codec = "onebit"}});
    const std::string text = std::string(name(outcome.result)) + "/" + std::string(name(outcome.reason));
    EXPECT_TRUE(text == "compressed/none" || text == "exact/slower") << text;
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, text));
    if (first.empty()) first = text;
    EXPECT_EQ(text, first);
    EXPECT_NEAR(data[7], (world_size() + 1) / 2.0, 1e-4);
  }
  std::vector<float> small(10, 1.0f);
  const auto outcome = world.allreduce(view(small), Op::sum, {.policy = {.codec = "onebit"}});
  EXPECT_EQ(outcome.result, Outcome::Result::exact);
  EXPECT_TRUE(outcome.reason == Outcome::Reason::small || outcome.reason == Outcome::Reason::slower);
}

/// What `auto` chose for a tensor stays, on other Communicators and after a checkpoint too.
TEST(Outcome, AutoKeepsToItsChoiceOfATensor) {
  Communicator self(MPI_COMM_SELF);  // one rank has nothing to gain
  std::vector<float> data(100000, 2.0f);
  const CallOptions automatic{.policy = {.codec = "onebit"}};
  const auto reduce = [&](Communicator& comm, const CallOptions& options, Feedback& feedback) {
    return std::string(name(comm.allreduce({view(data), &feedback}, Op::average, options).reason));
  };
  Feedback declined;
  EXPECT_EQ(reduce(self, automatic, declined), "slower");
  Feedback loaded;
  loaded.load(declined.save());
  EXPECT_EQ(loaded.save(), declined.save());
  EXPECT_EQ(reduce(self, automatic, loaded), "slower");

  Feedback owing;
  EXPECT_EQ(reduce(self, compressing("onebit"), owing), "none");
  loaded.load(owing.save());
  EXPECT_EQ(reduce(self, automatic, loaded), "none") << "what is owed is paid";
  EXPECT_EQ(loaded.calls(), 2u);
}

TEST(Outcome, NonFinitePiecesAreAsMpiGivesThem) {
  Communicator world(MPI_COMM_WORLD);
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {infinity, -infinity, std::nan("")}) {
    for (const bool in_place : {false, true}) {
      for (const int culprit : {0, world_size() - 1}) {
        SCOPED_TRACE(std::to_string(bad) + " on rank " + std::to_string(culprit));
        const std::size_t count = 64 * 40;
        Rehearsal rehearsal(world_size(), count, DType::f32, 64, Op::sum);
        Feedback feedback;
        CallOptions options = compressing("onebit:block=64", &feedback);
        options.policy.segment_bytes = 64 * 4 * static_cast<std::size_t>(world_size());  // a block a piece
        for (int step = 0; step < 3; ++step) {
          auto inputs = rehearsal.next(static_cast<std::uint64_t>(step));

          const std::size_t at = 64 * 20 + 5;
          if (step == 1) inputs[static_cast<std::size_t>(culprit)][at] = bad;
          Buffers buffers(inputs[me()], DType::f32, in_place);
          std::vector<float> mine(count), sum(count);
          for (std::size_t i = 0; i < count; ++i) mine[i] = static_cast<float>(buffers.in[i]);
          MPI_Allreduce(mine.data(), sum.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
          const auto workers = doubles_of(feedback.worker());
          const auto model_before = rehearsal.model();
          const auto outcome = buffers.reduce(world, Op::sum, options);
          ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, buffers.result().bytes()));
          EXPECT_EQ(outcome.result, Outcome::Result::compressed);
          if (step != 1) {
            EXPECT_EQ(outcome.reason, Outcome::Reason::none);
            ASSERT_TRUE(rehearsal.agrees(world.rank(), buffers.result(), &feedback)) << "step " << step;
            continue;
          }
          // the model takes the step without the piece, whose residuals stay what they were
          inputs[static_cast<std::size_t>(culprit)][at] = 0;
          rehearsal.model().step(inputs);
          rehearsal.keep(model_before, 64 * 20, 64 * 21);
          EXPECT_EQ(outcome.reason, Outcome::Reason::non_finite);
          EXPECT_EQ(outcome.exact_count, 64u);
          for (std::size_t i = 64 * 20; i < 64 * 21; ++i) {
            const double want = sum[i];
            const double got = buffers.result()[i];
            if (std::isfinite(want)) {
              ASSERT_NEAR(got, want, 1e-5 * world_size()) << i;
            } else {
              ASSERT_EQ(std::isnan(got), std::isnan(want)) << i;
              ASSERT_TRUE(std::isnan(want) || got == want) << i;
            }
            ASSERT_NEAR(feedback.worker().as<float>()[i], workers[i], 1e-5)
                << "the residual keeps what it owes";
          }
          for (std::size_t i = 0; i < count; ++i) {
            ASSERT_TRUE(i / 64 == 20 || std::isfinite(buffers.result()[i])) << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
