// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3 4
//
// Requests, plans, lists and buckets as a user has them: each gives results bit-identical to those of
// blocking calls.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <terse/gradient_buckets.hpp>
#include <vector>

#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

struct Case {
  const char* codec;
  std::size_t count;
  DType dtype = DType::f32;
  Op op = Op::average;
  const char* algorithm = "";
  bool in_place = false;
};

std::vector<Case> cases() {
  return {{"onebit:block=64", 5003},
          {"onebit:block=64", 0},
          {"onebit:block=64", 1, DType::f64, Op::sum},
          {"identity", 1000, DType::f32, Op::sum, "exact"},
          {"cast:bf16", 999, DType::f32, Op::average, "", true},
          {"onebit:block=8", 64, DType::bf16, Op::sum, "", true},
          {"identity", 3, DType::f16, Op::average, "exact"},
          {"onebit:deepspeed", 800}};
}

/// A tensor that is reduced step by step.
struct Job {
  explicit Job(const Case& c, std::uint64_t seed) : setting(c), seed_(seed) {
    options.policy = {.codec = make_codec(c.codec), .algorithm = c.algorithm, .min_bytes = 0};
    options.feedback = &feedback;
    fill(0);
  }
  void fill(std::uint64_t step) {
    in = Tensor(exact_values(setting.count, setting.dtype, seed_ + step, world_rank()), setting.dtype);
    out = Tensor(setting.count, setting.dtype);
  }
  terse::Tensor tensor() {
    return setting.in_place ? terse::Tensor(in.view()) : terse::Tensor(std::as_const(in).view(), out.view());
  }
  Outcome reduce(Communicator& comm) { return comm.allreduce(tensor(), setting.op, options); }
  Request begin(Communicator& comm) { return comm.iallreduce(tensor(), setting.op, options); }
  Plan plan(Communicator& comm) {
    return comm.allreduce_init(tensor(), setting.op, {.policy = options.policy});
  }
  const Tensor& result() const { return setting.in_place ? in : out; }

  Case setting;
  std::uint64_t seed_;
  Feedback feedback;
  CallOptions options;
  Tensor in;
  Tensor out;
};

bool same(const Outcome& a, const Outcome& b) {
  return a.result == b.result && a.reason == b.reason && a.algorithm == b.algorithm &&
         a.bytes_sent == b.bytes_sent && a.exact_count == b.exact_count;
}

TEST(Requests, GiveWhatBlockingCallsGive) {
  Communicator world(MPI_COMM_WORLD);
  std::vector<std::unique_ptr<Job>> blocking;
  std::vector<std::unique_ptr<Job>> begun;
  for (const Case& c : cases()) {
    blocking.push_back(std::make_unique<Job>(c, 7));
    begun.push_back(std::make_unique<Job>(c, 7));
  }
  std::mt19937 random(static_cast<unsigned>(world_rank()));
  for (std::uint64_t step = 0; step < 6; ++step) {
    std::vector<Outcome> outcomes;
    for (const auto& job : blocking) {
      job->fill(step);
      outcomes.push_back(job->reduce(world));
    }
    std::vector<Request> requests;
    for (const auto& job : begun) {
      job->fill(step);
      requests.push_back(job->begin(world));
      EXPECT_TRUE(requests.back().active());
    }
    std::vector<std::size_t> order(requests.size());
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t k : order) {
      while (random() % 4 != 0 && !requests[k].test()) {
      }
      const Outcome outcome = requests[k].wait();
      EXPECT_TRUE(same(outcome, outcomes[k])) << cases()[k].codec;
      EXPECT_FALSE(requests[k].active());
      EXPECT_TRUE(requests[k].test()) << "none is over";
      ASSERT_TRUE(begun[k]->result().same_bits(blocking[k]->result()))
          << cases()[k].codec << ", step " << step;
    }
    for (const auto& job : begun) ASSERT_TRUE(same_on_all(MPI_COMM_WORLD, job->result().bytes()));
  }
}

/// Blocking calls of both kinds while others are under way, which ranks end before them or after.
TEST(Requests, LetBlockingCallsPass) {
  Communicator world(MPI_COMM_WORLD);
  for (int turn = 0; turn < 30; ++turn) {
    std::vector<float> a(3000, 1.0f + static_cast<float>(world_rank()));
    std::vector<float> b(10, 1.0f);
    std::vector<float> c(500, 2.0f);
    const CallOptions lossy{.policy = {.codec = "onebit:block=64", .min_bytes = 0}};
    Request first = world.iallreduce(view(a), Op::average, lossy);
    std::vector<float> d(7, 1.0f);
    Request second = world.iallreduce(view(d), Op::sum);  // small: without agreement, by MPI
    if ((world_rank() + turn) % 3 == 0) first.wait();
    world.allreduce(view(b), Op::sum);
    if ((world_rank() + turn) % 3 == 1) second.wait();
    world.allreduce(view(c), Op::average, lossy);
    if (second.active()) second.wait();
    if (first.active()) first.wait();
    const auto ranks = static_cast<float>(world_size());
    ASSERT_EQ(a, std::vector<float>(3000, (ranks + 1) / 2));
    ASSERT_EQ(b, std::vector<float>(10, ranks));
    ASSERT_EQ(c, std::vector<float>(500, 2.0f));
    ASSERT_EQ(d, std::vector<float>(7, ranks));
  }
}

/// A wait is over with its call: what was begun after it may need ranks that wait for this one.
TEST(Requests, AreWaitedForAlone) {
  Communicator world(MPI_COMM_WORLD);
  for (const char* algorithm : {"exact", "two_phase"}) {
    for (const std::size_t count : {std::size_t{1000}, std::size_t{300000}}) {
      for (const bool blocking : {false, true}) {
        if (blocking && std::string(algorithm) == "exact") continue;  // it may block in MPI
        SCOPED_TRACE(algorithm);
        const CallOptions options{
            .policy = {.codec = "onebit:block=64", .algorithm = algorithm, .min_bytes = 0}};
        std::vector<float> a(count, 1.0f);
        std::vector<float> b(count, 2.0f);
        std::vector<float> c(count, 3.0f);
        Request first = world.iallreduce(view(a), Op::sum, options);
        Request second;
        const auto end_first = [&] {
          if (blocking) world.allreduce(view(c), Op::sum, options);
          if (!blocking) first.wait();
        };
        if (world_rank() == 0) {
          if (!blocking) second = world.iallreduce(view(b), Op::sum, options);
          end_first();
          for (int r = 1; r < world_size(); ++r) MPI_Send(nullptr, 0, MPI_INT, r, 0, MPI_COMM_WORLD);
        } else {
          end_first();
          MPI_Recv(nullptr, 0, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
        if (!second.active()) second = world.iallreduce(view(b), Op::sum, options);
        second.wait();
        if (first.active()) first.wait();
        const auto ranks = static_cast<float>(world_size());
        ASSERT_EQ(a, std::vector<float>(count, ranks));
        ASSERT_EQ(b, std::vector<float>(count, 2 * ranks));
        ASSERT_EQ(c, std::vector<float>(count, blocking ? 3 * ranks : 3));
      }
    }
  }
}

TEST(Requests, TellErrorsWhenWaitedFor) {
  Communicator world(MPI_COMM_WORLD);
  std::vector<float> data(1000, 1.0f);
  CallOptions options{.policy = {.codec = "onebit", .min_bytes = 0}};
  const bool odd = world_rank() == world_size() - 1;
  Request good = world.iallreduce(view(data), Op::sum, options);
  std::vector<float> more(1000, 1.0f);
  CallOptions wrong = options;
  if (odd) wrong.policy.codec = "no such codec";
  Request bad = world.iallreduce(view(more), Op::sum, wrong);
  std::vector<float> third(1000, 1.0f);
  Request last = world.iallreduce(view(third), Op::sum, options);
  const std::string error = error_of([&] { bad.wait(); });
  EXPECT_TRUE(is_error(error, "invalid_argument", {"no such codec"}));
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
  EXPECT_EQ(more, std::vector<float>(1000, 1.0f)) << "untouched";
  EXPECT_EQ(error_of([&] { last.wait(); }), "");
  EXPECT_EQ(error_of([&] { good.wait(); }), "");
  EXPECT_EQ(third, std::vector<float>(1000, static_cast<float>(world_size())));
  EXPECT_TRUE(is_error(error_of([&] { good.wait(); }), "invalid_state", {"none"}));
  // a call that is blocking on one rank and not on another
  if (world_size() == 1) return;
  const std::string mixed = error_of([&] {
    if (odd) {
      world.allreduce(view(data), Op::sum, options);
    } else {
      world.iallreduce(view(data), Op::sum, options).wait();
    }
  });
  EXPECT_TRUE(is_error(mixed, "mismatch", {"call is", "iallreduce"}));
  // one Feedback in two calls at once
  Feedback feedback;
  options.feedback = &feedback;
  Request holds = world.iallreduce(view(data), Op::sum, options);
  Request wants = world.iallreduce(view(more), Op::sum, options);
  for (const auto& change : std::vector<std::function<void()>>{
           [&] { feedback.reset(); }, [&] { feedback.load(std::span<const std::byte>()); },
           [&] { feedback.load(std::span<const std::vector<std::byte>>()); }}) {
    EXPECT_TRUE(is_error(error_of(change), "invalid_state", {"under way"}));
  }
  EXPECT_TRUE(is_error(error_of([&] { wants.wait(); }), "invalid_state", {"in use"}));
  EXPECT_EQ(error_of([&] { holds.wait(); }), "");
}

TEST(Requests, MayBeLeftOrOutliveTheirCommunicator) {
  std::vector<float> a(4000, 1.0f);
  std::vector<float> b(4000, 2.0f);
  Request request;
  {
    Communicator world(MPI_COMM_WORLD);
    const CallOptions options{
        .policy = {.codec = "onebit:block=64", .algorithm = "two_phase", .min_bytes = 0}};
    {
      const Request left = world.iallreduce(view(a), Op::sum, options);  // its destructor waits
    }
    EXPECT_EQ(a, std::vector<float>(4000, static_cast<float>(world_size())));
    request = world.iallreduce(view(b), Op::sum, options);
    EXPECT_GT(world.scratch_bytes(), 0u);
  }  // freed: the call is over
  EXPECT_EQ(b, std::vector<float>(4000, 2 * static_cast<float>(world_size())));
  EXPECT_TRUE(request.test());
  EXPECT_EQ(request.wait().result, Outcome::Result::compressed);
}

/// What a Request reads and writes may be gone once an exception has passed it: nothing touches it then, and
/// the Communicator says so.
TEST(Requests, LeftByAnExceptionBreakTheirCommunicator) {
  if (world_size() == 1) return;  // over at once
  Communicator world(MPI_COMM_WORLD);
  Feedback feedback;
  const CallOptions options{.policy = {.codec = "onebit:block=64", .min_bytes = 0}, .feedback = &feedback};
  std::vector<float> data(1 << 20, 1.0f);
  try {
    const Request request = world.iallreduce(view(data), Op::sum, options);
    throw std::runtime_error("something else went wrong");
  } catch (const std::runtime_error&) {
  }
  const std::vector<float> before = data;
  std::vector<float> few(3, 1.0f);
  const std::string none = error_of([&] { world.allreduce_init(view(few), Op::sum); });
  EXPECT_TRUE(is_error(none, "communication", {"not usable any more"}));
  const std::string error = error_of([&] { world.allreduce(view(data), Op::sum, options); });
  EXPECT_TRUE(is_error(error, "communication", {"not usable any more"}));
  EXPECT_EQ(data, before);
  EXPECT_EQ(error_of([&] { feedback.reset(); }), "");
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(Plans, AreBlockingCallsWithAFeedback) {
  Communicator world(MPI_COMM_WORLD);
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.codec);
    Job blocking(c, 3);
    Job planned(c, 3);
    Plan plan = planned.plan(world);
    std::vector<std::byte> saved;
    std::vector<std::byte> at_two;
    for (std::uint64_t step = 0; step < 5; ++step) {
      blocking.fill(step);
      const auto values = exact_values(c.count, c.dtype, 3 + step, world_rank());
      for (std::size_t i = 0; i < c.count; ++i) planned.in.set(i, values[i]);
      const Outcome want = blocking.reduce(world);
      plan.start();
      if (step % 2 == 0) static_cast<void>(plan.test());
      EXPECT_TRUE(same(plan.wait(), want));
      ASSERT_TRUE(planned.result().same_bits(blocking.result())) << "step " << step;
      EXPECT_EQ(plan.feedback().save(), blocking.feedback.save());
      if (step == 2) saved = plan.feedback().save();
      if (step == 3) {
        at_two.assign(planned.result().bytes().begin(), planned.result().bytes().end());
      }
    }
    // from the save on, the same again
    plan.feedback().load(saved);
    const auto values = exact_values(c.count, c.dtype, 3 + 3, world_rank());
    for (std::size_t i = 0; i < c.count; ++i) planned.in.set(i, values[i]);
    plan.start();
    plan.wait();
    const auto again = planned.result().bytes();
    EXPECT_TRUE(std::equal(again.begin(), again.end(), at_two.begin(), at_two.end()));
  }
}

TEST(Plans, OfListsKeepResidualsOfEach) {
  Communicator world(MPI_COMM_WORLD);
  const CallOptions options{.policy = {.codec = "onebit:block=64", .algorithm = "two_phase", .min_bytes = 0}};
  std::vector<std::vector<float>> data = {std::vector<float>(100), std::vector<float>(0),
                                          std::vector<float>(333)};
  std::vector<std::vector<float>> want = data;
  std::vector<terse::Tensor> tensors;
  for (auto& d : data) tensors.emplace_back(view(d));
  Plan plan = world.allreduce_init(tensors, Op::average, options);
  std::vector<Feedback> feedbacks(3);
  for (int step = 0; step < 4; ++step) {
    for (std::size_t t = 0; t < 3; ++t) {
      for (std::size_t i = 0; i < data[t].size(); ++i) {
        want[t][i] = data[t][i] = std::sin(static_cast<float>(i * 3 + t + static_cast<std::size_t>(step))) +
                                  0.1f * static_cast<float>(world_rank());
      }
      world.allreduce({view(want[t]), &feedbacks[t]}, Op::average, options);
    }
    plan.start();
    plan.wait();
    ASSERT_EQ(data, want) << "step " << step;
  }
  for (std::size_t t = 0; t < 3; ++t) {
    EXPECT_EQ(plan.feedback(t).calls(), t == 1 ? 4u : feedbacks[t].calls());
  }
  EXPECT_TRUE(is_error(error_of([&] { plan.feedback(3); }), "invalid_argument", {"3 tensors"}));
}

/// Whose residuals are whose is said once: in the tensor, or for a single one in the options.
TEST(Residuals, AreNamedOnce) {
  Communicator world(MPI_COMM_WORLD);
  std::vector<float> a(1000, 1.0f);
  std::vector<float> b(1000, 2.0f);
  Feedback feedback;
  Feedback other;
  const CallOptions options = compressing("onebit:block=64", &feedback);
  const auto refused = [&](const Tensors& tensors, const std::vector<std::string>& parts) {
    for (const auto& call :
         std::vector<std::function<void()>>{[&] { world.allreduce(tensors, Op::average, options); },
                                            [&] { world.iallreduce(tensors, Op::average, options).wait(); },
                                            [&] { world.allreduce_init(tensors, Op::average, options); }}) {
      const std::string error = error_of(call);
      EXPECT_TRUE(is_error(error, "invalid_argument", parts));
      EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
    }
  };
  const std::vector<terse::Tensor> bare = {view(a), view(b)};
  const std::vector<terse::Tensor> named = {{view(a), &feedback}, {view(b), &other}};
  refused(bare, {"list"});
  refused(named, {"list"});
  refused(std::vector<terse::Tensor>{view(a)}, {"list"});  // of whatever length
  refused({view(a), &other}, {});
  EXPECT_EQ(a, std::vector<float>(1000, 1.0f)) << "untouched";
  EXPECT_EQ(feedback.calls() + other.calls(), 0u);
  // the same one, said twice, is no contradiction
  world.allreduce({view(a), &feedback}, Op::average, options);
  EXPECT_EQ(feedback.calls(), 1u);
  EXPECT_EQ(a, std::vector<float>(1000, 1.0f));
}

/// On one rank alone, the others are told.
TEST(Residuals, AreNamedOnceOnEachRank) {
  Communicator world(MPI_COMM_WORLD);
  const bool last = world_rank() == world_size() - 1;
  std::vector<float> data(1000, 1.0f);
  Feedback feedback;
  Feedback other;
  const std::string error = error_of([&] {
    world.allreduce({view(data), last ? &other : &feedback}, Op::average,
                    compressing("onebit:block=64", &feedback));
  });
  const std::string culprit = world_size() == 1 ? "" : "rank " + std::to_string(world_size() - 1);
  EXPECT_TRUE(is_error(error, "invalid_argument", {culprit}));
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
  world.allreduce({view(data), &feedback}, Op::average, compressing("onebit:block=64"));
  EXPECT_EQ(feedback.calls(), 1u) << "and it serves on";
}

TEST(Plans, AndBucketsKeepResidualsAsTold) {
  std::vector<float> f32(3000, 1.0f);
  std::vector<double> f64(3000, 1.0);
  for (const bool by_communicator : {false, true}) {
    CallOptions options{.policy = {.codec = "onebit", .algorithm = "two_phase", .min_bytes = 0}};
    CommunicatorOptions of_communicator;
    (by_communicator ? of_communicator.policy : options.policy).residual = ResidualType::bf16;
    Communicator world(MPI_COMM_WORLD, of_communicator);
    Plan plan = world.allreduce_init(view(f32), Op::sum, options);
    plan.start();
    plan.wait();
    EXPECT_EQ(plan.feedback().worker().dtype, DType::bf16);
    Plan wide = world.allreduce_init(view(f64), Op::sum, options);
    wide.start();
    wide.wait();
    EXPECT_EQ(wide.feedback().worker().dtype, DType::f64);
    const std::vector<View> views = {view(f32), view(f64)};
    GradientBuckets buckets(world, views, Op::sum, 1 << 20, options);
    for (std::size_t t = 0; t < 2; ++t) buckets.ready(t);
    buckets.wait();
    EXPECT_EQ(buckets.feedback(0).worker().dtype, DType::bf16);
    EXPECT_EQ(buckets.feedback(1).worker().dtype, DType::f64);
  }
}

TEST(Plans, SayWhatIsWrong) {
  Communicator world(MPI_COMM_WORLD);
  std::vector<float> data(1000, 1.0f);
  CallOptions options{.policy = {.codec = "onebit", .min_bytes = 0}};
  Plan plan = world.allreduce_init(view(data), Op::sum, options);
  EXPECT_TRUE(is_error(error_of([&] { plan.wait(); }), "invalid_state", {"none"}));
  EXPECT_TRUE(plan.test());
  plan.start();
  EXPECT_TRUE(is_error(error_of([&] { plan.start(); }), "invalid_state", {"under way"}));
  plan.wait();
  Plan moved = std::move(plan);
  EXPECT_TRUE(is_error(error_of([&] { plan.start(); }), "invalid_state", {"moved from"}));
  moved.start();
  moved.wait();
  options.policy.codec = world_rank() == 0 ? "no such codec" : "onebit";
  const std::string error = error_of([&] { world.allreduce_init(view(data), Op::sum, options); });
  EXPECT_TRUE(is_error(error, "invalid_argument", {"no such codec"}));
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
  world.free();
  EXPECT_TRUE(is_error(error_of([&] { moved.start(); }), "invalid_state", {"freed"}));
}

TEST(Buckets, AreReducedInTheirOrder) {
  Communicator world(MPI_COMM_WORLD);
  const CallOptions options{.policy = {.codec = "onebit:block=64", .algorithm = "two_phase", .min_bytes = 0}};
  const std::vector<std::size_t> counts = {1000, 10, 0, 300, 301, 5000, 64, 1, 2, 3};
  std::vector<std::vector<float>> data;
  std::vector<View> views;
  for (const std::size_t count : counts) data.emplace_back(count);
  for (auto& d : data) views.push_back(view(d));
  std::vector<double> doubles(500);
  views.push_back(view(doubles));
  GradientBuckets buckets(world, views, Op::average, 4096, options);
  EXPECT_EQ(buckets.buckets(), 4u) << "1000 + 10 + 0 + 300, 301 + 5000, the rest, and f64";
  std::vector<std::vector<float>> want = data;
  std::vector<double> want_doubles(500);
  std::vector<Feedback> feedbacks(views.size());
  std::mt19937 random(static_cast<unsigned>(world_rank()) + 5);
  for (int step = 0; step < 5; ++step) {
    for (std::size_t t = 0; t < data.size(); ++t) {
      for (std::size_t i = 0; i < counts[t]; ++i) {
        want[t][i] = data[t][i] = std::cos(static_cast<float>(i * 7 + t + static_cast<std::size_t>(step))) *
                                  static_cast<float>(1 + world_rank());
      }
      world.allreduce({view(want[t]), &feedbacks[t]}, Op::average, options);
    }
    for (std::size_t i = 0; i < 500; ++i) want_doubles[i] = doubles[i] = static_cast<double>(i) - 250.5;
    world.allreduce({view(want_doubles), &feedbacks.back()}, Op::average, options);
    std::vector<std::size_t> order(views.size());
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t t : order) buckets.ready(t);
    const Outcome outcome = buckets.wait();
    EXPECT_EQ(outcome.result, Outcome::Result::compressed);
    ASSERT_EQ(data, want) << "step " << step;
    ASSERT_EQ(doubles, want_doubles);
    for (std::size_t t = 0; t < views.size(); ++t) {
      EXPECT_EQ(doubles_of(buckets.feedback(t).worker()), doubles_of(feedbacks[t].worker())) << t;
    }
  }
}

TEST(Buckets, SayWhatIsMissing) {
  Communicator world(MPI_COMM_WORLD);
  CallOptions options{.policy = {.codec = "onebit:block=64", .min_bytes = 0}};
  std::vector<std::vector<float>> data(4, std::vector<float>(200, 1.0f));
  std::vector<View> views;
  for (auto& d : data) views.push_back(view(d));
  GradientBuckets buckets(world, views, Op::sum, 800, options);
  for (int step = 0; step < 3; ++step) {
    for (auto& d : data) std::fill(d.begin(), d.end(), 1.0f);
    const bool forgets = step == 1 && world_rank() == world_size() - 1;
    for (std::size_t t = 0; t < 4; ++t) {
      if (!(forgets && t == 2)) buckets.ready(t);
    }
    const std::string error = error_of([&] { buckets.wait(); });
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
    if (step == 1) {
      EXPECT_TRUE(is_error(error, "invalid_state", {"tensor 2"}));
      const std::string culprit = "rank " + std::to_string(world_size() - 1);
      EXPECT_TRUE(world_size() == 1 || error.find(culprit) != std::string::npos) << error;
    } else {
      EXPECT_EQ(error, "");
      for (const auto& d : data) EXPECT_EQ(d, std::vector<float>(200, static_cast<float>(world_size())));
    }
  }
  EXPECT_TRUE(is_error(error_of([&] { buckets.ready(4); }), "invalid_argument", {"no tensor 4"}));
  buckets.ready(0);
  EXPECT_TRUE(is_error(error_of([&] { buckets.ready(0); }), "invalid_argument", {"twice"}));
  for (std::size_t t = 1; t < 4; ++t) buckets.ready(t);
  buckets.wait();
  EXPECT_TRUE(is_error(error_of([&] { GradientBuckets(world, views, Op::sum, 0, options); }),
                       "invalid_argument", {"bucket_bytes"}));
  Feedback feedback;  // the buckets have one for each tensor
  options.feedback = &feedback;
  EXPECT_TRUE(is_error(error_of([&] { GradientBuckets(world, views, Op::sum, 800, options); }),
                       "invalid_argument", {"feedback"}));
}

/// Small buckets go uncompressed, and without an agreement if they were calls of their own.
TEST(Buckets, SayWhatIsMissingFromASmallOne) {
  Communicator world(MPI_COMM_WORLD);
  std::vector<float> a(3, 1.0f);
  std::vector<float> b(3, 1.0f);
  const std::vector<View> views = {view(a), view(b)};
  GradientBuckets buckets(world, views, Op::sum, 1);
  for (int step = 0; step < 3; ++step) {
    std::fill(a.begin(), a.end(), 1.0f);
    std::fill(b.begin(), b.end(), 2.0f);
    buckets.ready(0);
    if (step != 1 || world_rank() != 0) buckets.ready(1);
    const std::string error = error_of([&] { buckets.wait(); });
    if (step == 1) {
      EXPECT_TRUE(is_error(error, "invalid_state", {"tensor 1"}));
      EXPECT_EQ(b, std::vector<float>(3, 2.0f));
    } else {
      EXPECT_EQ(error, "");
      EXPECT_EQ(b, std::vector<float>(3, 2 * static_cast<float>(world_size())));
    }
    EXPECT_EQ(a, std::vector<float>(3, static_cast<float>(world_size())));
  }
  GradientBuckets moved = std::move(buckets);
  EXPECT_EQ(buckets.buckets(), 0u);
  EXPECT_TRUE(is_error(error_of([&] { buckets.ready(0); }), "invalid_state", {"moved from"}));
  EXPECT_TRUE(is_error(error_of([&] { buckets.wait(); }), "invalid_state", {"moved from"}));
  EXPECT_TRUE(is_error(error_of([&] { buckets.feedback(0); }), "invalid_state", {"moved from"}));
  EXPECT_EQ(moved.buckets(), 2u);
}

TEST(Communicators, CountTheirThreads) {
  for (const std::size_t threads : {std::size_t{0}, std::size_t{100000}}) {
    EXPECT_TRUE(is_error(error_of([&] { Communicator(MPI_COMM_WORLD, {.threads = threads}); }),
                         "invalid_argument", {"threads", "1 to"}));
  }
}

TEST(Communicators, ThreadsAndProgressChangeNothing) {
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  CommunicatorOptions threaded{.threads = 3};
  if (level == MPI_THREAD_MULTIPLE) threaded.progress = Progress::thread;
  Communicator one(MPI_COMM_WORLD);
  Communicator three(MPI_COMM_WORLD, threaded);
  for (const Case& c : cases()) {
    Job a(c, 11);
    Job b(c, 11);
    for (std::uint64_t step = 0; step < 3; ++step) {
      a.fill(step);
      b.fill(step);
      const Outcome want = a.reduce(one);
      Request request = b.begin(three);
      while (step == 1 && !request.test()) {
      }
      EXPECT_TRUE(same(request.wait(), want)) << c.codec;
      ASSERT_TRUE(b.result().same_bits(a.result())) << c.codec;
    }
  }
  if (level != MPI_THREAD_MULTIPLE) {
    threaded.progress = Progress::thread;
    EXPECT_TRUE(is_error(error_of([&] { Communicator(MPI_COMM_WORLD, threaded); }), "unsupported",
                         {"MPI_THREAD_MULTIPLE", "MPI_Init_thread"}));
  }
}

}  // namespace
}  // namespace terse::test
