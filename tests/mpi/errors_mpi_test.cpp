// SPDX-License-Identifier: Apache-2.0
//
// Wrong calls under mpirun: the same sentence on every rank within seconds, and the Communicator serves on.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

/// What one rank passes; the rest of the ranks pass the first of a pair.
struct Arguments {
  std::size_t count = 1000;
  DType dtype = DType::f32;
  Op op = Op::average;
  CallOptions options = compressing("onebit:block=64");
};

class Errors : public testing::Test {
 protected:
  /// Calls with `mine`; checks that all ranks hear the same, that nothing was written, and that a good call
  /// works. (That nobody waits for good is the watchdog's business: how long a refusal takes depends on what
  /// else the machine does.)
  std::string call(const Arguments& mine) {
    Tensor in(normal_values(mine.count, mine.dtype, 1, world_rank()), mine.dtype);
    Tensor out(std::vector<double>(mine.count, -7.0), mine.dtype);
    const Tensor in_before = in;
    const Tensor out_before = out;
    const auto error = error_of([&] {
      world_.allreduce({std::as_const(in).view(), out.view()}, mine.op, mine.options);
    });
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
    EXPECT_TRUE(in.same_bits(in_before) && out.same_bits(out_before)) << "written before agreement";
    good_call();
    return error;
  }

  void good_call() {
    Tensor data(std::vector<double>(200, 3.0), DType::f32);
    const auto error =
        error_of([&] { world_.allreduce(data.view(), Op::average, compressing("onebit:block=64")); });
    EXPECT_EQ(error, "");
    EXPECT_EQ(data[100], 3.0);
  }

  /// A call of the kind that a caller hands the buffers to.
  std::string views(const terse::Tensor& tensor,
                    const CallOptions& options = compressing("onebit:block=64")) {
    const auto error = error_of([&] { world_.allreduce(tensor, Op::average, options); });
    EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
    good_call();
    return error;
  }

  Communicator world_{MPI_COMM_WORLD};
  const bool last_ = world_rank() == world_size() - 1;
  const std::string last_rank_ = world_size() == 1 ? "" : "rank " + std::to_string(world_size() - 1);
};

TEST_F(Errors, MismatchedCallsNameBothSides) {
  if (world_size() < 2) return;
  Arguments mine;
  if (last_) mine.count = 999;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"count", "1000", "999", last_rank_}));
  mine = {};
  if (last_) mine.dtype = DType::bf16;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"dtype", "f32", "bf16", last_rank_}));
  mine = {};
  if (last_) mine.options.policy.codec = "onebit:block=128";
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"codec", "block=64", "block=128", last_rank_}));
  mine = {};
  if (last_) mine.options.policy.codec = "cast:f16";
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"codec", "onebit", "cast:f16", last_rank_}));
  mine = {};
  if (last_) mine.op = Op::sum;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"op", "sum", "average", last_rank_}));
  mine = {};
  if (last_) mine.options.policy.segment_bytes = 4096;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"segment_bytes", "4096", last_rank_}));
  mine = {};
  Feedback feedback;
  if (last_) mine.options.feedback = &feedback;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"feedback", last_rank_}));
  mine = {};
  if (last_) mine.options.policy.check = Check::payload;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"check", last_rank_}));
}

/// With check=all, exact and small calls are agreed on as well.
TEST_F(Errors, CheckAllCoversExactCalls) {
  if (world_size() < 2) return;
  Arguments mine{.options = {.policy = {.algorithm = "exact", .check = Check::all}}};
  if (last_) mine.count = 999;
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"count", "1000", "999", last_rank_}));
  mine.count = 1000;
  mine.options.policy = {.codec = "onebit", .algorithm = "two_phase", .min_bytes = 3999, .check = Check::all};
  if (last_) mine.count = 999;  // below min_bytes on one rank alone
  EXPECT_TRUE(is_error(call(mine), "mismatch", {"1000", "999", last_rank_}));
}

/// What is wrong on one rank is told to all.
TEST_F(Errors, OfOneRankAreThrownByAll) {
  std::vector<float> data(1000, 1.0f);
  std::vector<float> other(1000);
  const ConstView in = view(std::as_const(data));
  const View out = view(other);
  EXPECT_TRUE(is_error(views({last_ ? ConstView(nullptr, 1000, DType::f32) : in, out}), "invalid_argument",
                       {"null", last_rank_}));
  EXPECT_TRUE(is_error(views({in, last_ ? View{nullptr, 1000, DType::f32} : out}), "invalid_argument",
                       {"null", last_rank_}));
  EXPECT_TRUE(is_error(views({in, last_ ? out.slice(0, 999) : out}), "invalid_argument",
                       {"1000", "999", last_rank_}));
  View doubles = out;
  doubles.dtype = DType::f64;
  doubles.count = 500;
  EXPECT_TRUE(is_error(views({in.slice(0, 500), last_ ? doubles : out.slice(0, 500)}), "invalid_argument",
                       {"f32", "f64", last_rank_}));
  // half the input lies in the output
  const View half_over{data.data() + 250, 500, DType::f32};
  EXPECT_TRUE(is_error(views({in.slice(0, 500), last_ ? half_over : out.slice(0, 500)}), "invalid_argument",
                       {"overlap", last_rank_}));
  const View half_before{data.data(), 500, DType::f32};
  EXPECT_TRUE(is_error(views({in.slice(250, 500), last_ ? half_before : out.slice(0, 500)}),
                       "invalid_argument", {"overlap", last_rank_}));
  terse::Tensor matrix{in, out};
  matrix.rows = last_ ? 7 : 10;
  EXPECT_TRUE(is_error(views(matrix), "invalid_argument", {"no matrix of 7 rows", last_rank_}));
  matrix.rows = last_ ? 20 : 10;
  if (world_.size() > 1) {
    EXPECT_TRUE(is_error(views(matrix), "mismatch", {"rows", "10", "20", last_rank_}));
  }
  View device = out;
  device.memory = Memory::cuda;
  EXPECT_TRUE(is_error(views({in, last_ ? device : out}), has_cuda() ? "invalid_argument" : "unsupported",
                       {"CUDA", last_rank_}));
  CallOptions options = compressing(last_ ? "twobit" : "onebit:block=64");
  EXPECT_TRUE(is_error(views({in, out}, options), "invalid_argument", {"twobit", "onebit", last_rank_}));
  options = compressing("onebit:block=64");
  if (last_) options.policy.algorithm = "fast";
  EXPECT_TRUE(is_error(views({in, out}, options), "invalid_argument", {"fast", "two_phase", last_rank_}));
  options = compressing("onebit:block=64");
  if (last_) options.policy.segment_bytes = 0;
  EXPECT_TRUE(is_error(views({in, out}, options), "invalid_argument", {"segment_bytes", last_rank_}));
  for (const float v : data) ASSERT_EQ(v, 1.0f);
}

TEST_F(Errors, OfAllRanksInAnExactCall) {
  const CallOptions exact{.policy = {.algorithm = "exact"}};
  std::vector<float> data(10);
  EXPECT_TRUE(
      is_error(views({ConstView(nullptr, 10, DType::f32), view(data)}, exact), "invalid_argument", {"null"}));
  EXPECT_TRUE(is_error(views({view(data), view(data).slice(0, 9)}, exact), "invalid_argument", {"10", "9"}));
  EXPECT_TRUE(is_error(views(View{data.data(), ~std::size_t{0} / 2, DType::f32}), "invalid_argument"));
  EXPECT_EQ(views(View{nullptr, 0, DType::f32}, exact), "") << "no elements need no memory";
  EXPECT_EQ(views(View{nullptr, 0, DType::f32}), "");
}

TEST_F(Errors, WhatACodecCannotDo) {
  std::vector<double> data(100);
  EXPECT_TRUE(is_error(views(view(data), compressing("cast:f16")), "unsupported", {"cast:f16", "f64"}));
  std::vector<float> floats(100);
  Feedback feedback;
  EXPECT_TRUE(is_error(views(view(floats), compressing("onebit:scale=rms", &feedback)), "unsupported",
                       {"rms", "two_phase"}));
}

TEST_F(Errors, AFeedbackServesOneTensorUntilReset) {
  Feedback feedback;
  std::vector<float> first(300, 1.0f);
  std::vector<float> second(301, 1.0f);
  const auto options = compressing("onebit:block=64", &feedback);
  EXPECT_EQ(views(view(first), options), "");
  const auto held = feedback.save();
  EXPECT_TRUE(is_error(views(view(second), options), "invalid_state", {"300", "301", "reset"}));
  EXPECT_TRUE(is_error(views(view(first), compressing("onebit:block=8", &feedback)), "invalid_state",
                       {"block=64", "block=8"}));
  EXPECT_EQ(feedback.save(), held);
  EXPECT_EQ(feedback.calls(), 1u);
  feedback.reset();
  EXPECT_EQ(views(view(second), options), "");
  EXPECT_EQ(feedback.worker().count, 301u);
}

/// Nothing is named but a codec, or not even that: the first call of a kind makes a trial, others go
/// uncompressed. Every difference is an error all the same, and what ranks have found out together stays in
/// common.
TEST_F(Errors, WithDefaultOptions) {
  const Arguments plain{.count = 10000, .options = {.policy = {.codec = "onebit"}}};
  for (int round = 0; round < 2; ++round) {  // before a trial and after it
    Arguments mine = plain;
    std::vector<float> data(10000, 1.0f);
    EXPECT_TRUE(is_error(
        views({last_ ? ConstView(nullptr, 10000, DType::f32) : view(std::as_const(data)), view(data)},
              plain.options),
        "invalid_argument", {"null", last_rank_}));
    if (world_size() > 1) {
      if (last_) mine.count = 9999;
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"count", "10000", "9999", last_rank_}));
      mine = plain;
      if (last_) mine.dtype = DType::f64;
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"dtype", "f32", "f64", last_rank_}));
      mine = plain;
      if (last_) mine.options.policy.codec = "onebit:block=64";
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"codec", "block=2048", "block=64", last_rank_}));
      mine = plain;
      if (last_) mine.options = {};  // exact, and below nobody's threshold
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"codec", "onebit", "identity", last_rank_}));
      mine = plain;
      if (last_) mine.options.policy.algorithm = "exact";
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"algorithm", "auto", "exact", last_rank_}));
      mine = plain;
      if (last_) mine.options.policy.algorithm = "two_phase";
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"algorithm", "auto", "two_phase", last_rank_}));
      mine = plain;
      if (last_) mine.options.policy.min_bytes = 0;
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"min_bytes", "auto", last_rank_}));
      mine = {.count = 10000, .options = {}};
      if (last_) mine.count = 10001;
      EXPECT_TRUE(is_error(call(mine), "mismatch", {"count", "10000", "10001", last_rank_}));
    }
    mine = plain;
    Tensor tensor(std::vector<double>(mine.count, 3.0), DType::f32);
    const auto error =
        error_of([&] { world_.allreduce(tensor.view(), Op::average, {.policy = {.codec = "onebit"}}); });
    EXPECT_EQ(error, "");
    EXPECT_EQ(tensor[5000], 3.0);
  }
}

/// What does not go together is refused whatever a trial says, and for small tensors too.
TEST_F(Errors, UnsoundPairsDoNotDependOnTiming) {
  std::vector<float> floats(10000, 1.0f);
  std::vector<double> doubles(10, 1.0);
  Feedback feedback;
  EXPECT_TRUE(is_error(views(view(floats), {.policy = {.codec = "onebit:scale=rms"}, .feedback = &feedback}),
                       "unsupported", {"rms", "two_phase"}));
  EXPECT_TRUE(
      is_error(error_of([&] { world_.allreduce(view(doubles), Op::sum, {.policy = {.codec = "cast:f16"}}); }),
               "unsupported", {"cast:f16", "f64"}));
}

/// A Feedback that is no more, whatever the call would have done with it.
TEST_F(Errors, AFeedbackThatWasMovedFrom) {
  std::vector<float> data(10000, 1.0f);
  for (const CallOptions& base :
       {CallOptions{.policy = {.codec = "onebit"}}, CallOptions{.policy = {.algorithm = "exact"}},
        CallOptions{}, compressing("onebit")}) {
    Feedback feedback;
    Feedback taken;
    if (last_) taken = std::move(feedback);
    CallOptions options = base;
    options.feedback = &feedback;  // NOLINT(bugprone-use-after-move): what is tested
    EXPECT_TRUE(is_error(views(view(data), options), "invalid_state", {"moved from", last_rank_}));
  }
}

/// Saves that were swapped on one rank: what auto chose for another tensor is no choice for this one.
TEST_F(Errors, AChoiceOfAutoForAnotherTensor) {
  if (world_size() < 2) return;
  Feedback feedback;
  Communicator self(MPI_COMM_SELF);
  std::vector<float> data(10000, 1.0f);
  self.allreduce({view(data), &feedback}, Op::average,
                 {.policy = {.codec = "onebit"}});  // one rank has nothing to gain
  ASSERT_FALSE(feedback.save().empty());
  if (!last_) feedback.reset();
  EXPECT_TRUE(is_error(views({view(data), &feedback}, {.policy = {.codec = "onebit"}}), "mismatch",
                       {"feedback", last_rank_}));
}

/// What a caller has found by itself on one rank.
TEST_F(Errors, FoundByTheCaller) {
  const Error found(ErrorCode::unsupported, "no such buffer here");
  Arguments mine;
  if (last_) mine.options.failure = found;
  EXPECT_TRUE(is_error(call(mine), "unsupported", {"no such buffer here", last_rank_}));
  mine.options = {.policy = {.codec = "onebit"}};
  if (last_) mine.options.failure = found;
  EXPECT_TRUE(is_error(call(mine), "unsupported", {"no such buffer here", last_rank_}));
  CommunicatorOptions of_communicator;
  if (last_) of_communicator.failure = found;
  const auto error = error_of([&] { Communicator c(MPI_COMM_WORLD, of_communicator); });
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
  EXPECT_TRUE(is_error(error, "unsupported", {"no such buffer here", last_rank_}));
}

/// User code that throws what it likes.
TEST_F(Errors, OfACodecThatCannotBeMade) {
  static const bool registered = [] {
    register_codec({.name = "fragile",
                    .summary = "",
                    .options = {},
                    .examples = {},
                    .make = [](const CodecArguments&) -> std::shared_ptr<const Codec> {
                      throw std::out_of_range("what std::stoi says");
                    }});
    return true;
  }();
  ASSERT_TRUE(registered);
  std::vector<float> data(1000, 1.0f);
  EXPECT_TRUE(is_error(views(view(data), compressing(last_ ? "fragile" : "onebit")), "invalid_state",
                       {"what std::stoi says", last_rank_}));
  const auto error =
      error_of([&] { Communicator c(MPI_COMM_WORLD, {.policy = {.codec = last_ ? "fragile" : "onebit"}}); });
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, error));
  EXPECT_TRUE(is_error(error, "invalid_state", {"what std::stoi says", last_rank_}));
}

/// f32 as it is; decoding to a given place throws.
class Stubborn final : public Codec {
 public:
  explicit Stubborn(const void* refuses) : Codec("stubborn", "stubborn", traits_of()), refuses_(refuses) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.contractive = true;
    return traits;
  }
  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return 4 * count; }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    std::memcpy(payload.data(), values.data, values.bytes());
    return values.bytes();
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into into,
                 double factor) const override {
    if (refuses_ != nullptr && out.data == refuses_) throw Error(ErrorCode::out_of_memory, "no memory today");
    std::vector<float> values(out.count);
    std::memcpy(values.data(), payload.data(), payload.size());
    for (std::size_t i = 0; i < out.count; ++i) {
      const float scaled = values[i] * static_cast<float>(factor);
      out.as<float>()[i] = into == Into::add ? out.as<float>()[i] + scaled : scaled;
    }
  }
  const void* refuses_;
};

/// What rank 0 alone meets at the end of a call is its error; from then on the Communicator refuses on all
/// ranks where they agree, takes part where others would wait, and a caller's own finding still counts.
TEST(Broken, ByOneRankAloneLeavesNobodyWaiting) {
  if (world_size() == 1) GTEST_SKIP() << "there is nobody to leave alone";
  Communicator world(MPI_COMM_WORLD);
  std::vector<float> in(1000, 1.0f);
  std::vector<float> out(1000);
  const bool culprit = world.rank() == 0;
  Feedback feedback;
  const auto options = compressing(std::make_shared<Stubborn>(culprit ? out.data() : nullptr), &feedback);
  const auto reduce = [&] {
    return error_of([&] { world.allreduce({view(std::as_const(in)), view(out)}, Op::average, options); });
  };
  const std::string first = reduce();
  EXPECT_EQ(first.find("out_of_memory") == 0, culprit) << first;
  EXPECT_EQ(first.empty(), !culprit) << first;
  EXPECT_EQ(feedback.worker().count, 1000u) << "its messages went out, so it is no new Feedback any more";

  std::vector<float> few(3, 1.0f);
  const std::string small =
      error_of([&] { world.allreduce(view(few), Op::sum, {.policy = {.codec = "identity"}}); });
  EXPECT_EQ(small.find("communication") == 0, culprit) << small;
  EXPECT_EQ(few[0], static_cast<float>(world.size())) << "it took part";

  const CallOptions wrong{.policy = {.codec = "identity"},
                          .failure = Error(ErrorCode::unsupported, "found by the caller")};
  const std::string own = error_of([&] { world.allreduce(view(few), Op::sum, wrong); });
  EXPECT_TRUE(is_error(own, "unsupported", {"found by the caller"}));

  const std::string refused = reduce();
  EXPECT_TRUE(is_error(refused, "communication", {"rank 0", "no memory today"})) << refused;
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, refused));
}

/// A mistake in one's own arguments breaks nothing, on one rank neither.
TEST(Broken, NotByWrongArguments) {
  Communicator self(MPI_COMM_SELF);
  std::vector<float> data(1000, 1.0f);
  EXPECT_NE(error_of([&] { self.allreduce(view(data), Op::sum, {.policy = {.codec = "twobit"}}); }), "");
  EXPECT_NE(error_of([&] {
              self.allreduce(View{nullptr, 1000, DType::f32}, Op::average, compressing("onebit"));
            }),
            "");
  EXPECT_EQ(error_of([&] { self.allreduce(view(data), Op::average, compressing("onebit")); }), "");
}

}  // namespace
}  // namespace terse::test
