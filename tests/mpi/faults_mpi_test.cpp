// SPDX-License-Identifier: Apache-2.0
// ranks: 2 3 5
//
// Messages that do not arrive as they were sent, under mpirun: the same named error on all ranks, and from
// then on a refusal on all ranks.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collective/engine.hpp"
#include "support/exact.hpp"
#include "support/faulty_transport.hpp"
#include "support/mpi_ranks.hpp"
#include "transport/mpi_transport.hpp"

namespace terse::test {
namespace {

constexpr std::size_t kCount = 1000;
constexpr std::size_t kCalls = 3;

struct Result {
  std::vector<std::string> errors;  ///< by call
  std::vector<Tensor> out;
  bool altered = false;
  bool delayed = false;
};

/// A few calls in a row over a transport with a fault; a rank whose call failed says so in those that follow,
/// as a Communicator does.
Result calls(const std::string& spec, bool checksum, bool with_nan, const FaultPlan& plan) {
  MpiTransport mpi(MPI_COMM_WORLD);
  Result result;
  {
    FaultyTransport t(mpi, plan);
    Engine engine(t);
    Feedback feedback;
    std::optional<Error> broken;
    for (std::size_t c = 0; c < kCalls; ++c) {
      Tensor data(exact_values(kCount, DType::f32, c + 1, t.rank()), DType::f32);
      if (with_nan && c == 1 && t.rank() == 0) data.set(kCount - 1, std::nan(""));
      Call call;
      call.in = call.out = data.view();
      call.codec = make_codec(spec);
      call.algorithm = &algorithm_for(*call.codec, t.size());
      call.op = Op::average;
      call.feedback = &feedback;
      call.segment_bytes = 1200;
      call.checksum = checksum;
      call.failure = broken;
      result.errors.push_back(error_of([&] { engine.run(call); }));
      if (!broken && !result.errors.back().empty()) broken.emplace(ErrorCode::communication, "broken");
      result.out.push_back(data);
    }
    result.altered = t.altered();
    result.delayed = t.delayed();
  }
  const bool failed = std::any_of(result.errors.begin(), result.errors.end(),
                                  [](const auto& error) { return !error.empty(); });
  if (result.altered || failed) {
    mpi.leave();
  } else {
    mpi.free();
  }
  return result;
}

bool anywhere(bool here) {
  int any = here ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return any != 0;
}

/// Returns whether the plan has altered a message, or delayed one, where it was to.
bool check(const std::string& spec, bool checksum, bool with_nan, const FaultPlan& plan,
           const Result& sound) {
  SCOPED_TRACE(spec + (checksum ? ", checksum" : "") + (with_nan ? ", NaN; " : "; ") + text_of(plan));
  const Result got = calls(spec, checksum, with_nan, plan);
  const bool altered = anywhere(got.altered);
  bool found = false;
  for (std::size_t c = 0; c < kCalls; ++c) {
    const std::string& error = got.errors[c];
    if (found) {
      EXPECT_TRUE(is_error(error, "communication")) << "call " << c << " after it: " << error;
      continue;
    }
    found = anywhere(!error.empty());
    if (found) {
      EXPECT_TRUE(altered);
      EXPECT_TRUE((error.empty() && !checksum) || is_error(error, "corrupt_data")) << error;
    } else if (!altered || checksum) {
      EXPECT_TRUE(got.out[c].same_bits(sound.out[c])) << "call " << c;
    }
  }
  EXPECT_TRUE(found || !altered || !checksum) << "nobody has seen it";
  return plan.fault == Fault::delay ? anywhere(got.delayed) : altered;
}

void check_all(bool checksum) {
  std::uint64_t seed = 0;
  std::map<Fault, int> hits;
  for (const char* spec : {"onebit:block=64", "identity", "cast:bf16"}) {
    for (const bool with_nan : {false, true}) {
      const Result sound = calls(spec, checksum, with_nan, {.rank = -1});
      for (const Fault fault : kAllFaults) {
        for (const int channel : {0, 1, kErrorReports, kTagsOfAPass, kTagsOfAPass + 1}) {
          if (channel >= kErrorReports && !with_nan) continue;
          if (++seed % 2 != 0) continue;  // all of them: faults_test.cpp
          const FaultPlan plan{.fault = fault,
                               .rank = static_cast<int>(seed / 2 % static_cast<std::uint64_t>(world_size())),
                               .channel = channel,
                               .nth = channel >= kErrorReports ? 0 : seed / 2 % 4,
                               .seed = seed};
          hits[fault] += check(spec, checksum, with_nan, plan, sound);
          if (anywhere(testing::Test::HasFailure())) return;
        }
      }
    }
  }
  for (const Fault fault : kAllFaults) {
    // a message with its checksum fills the room of its receive, but for a flagged one: nothing can be added
    if (checksum && fault == Fault::extend) continue;
    // two messages change places only if the second comes soon enough: on a busy machine that may be few
    EXPECT_GT(hits[fault], fault == Fault::swap ? 0 : 2) << name(fault) << " has hardly happened";
  }
}

TEST(Faults, WithChecksumsEndInOneErrorOnAllRanks) { check_all(true); }

TEST(Faults, WithoutChecksumsNeverHang) { check_all(false); }

/// A codec whose messages its own decoder refuses: what bytes that changed on the way are to a Communicator.
class Corrupt final : public Codec {
 public:
  Corrupt() : Codec("corrupt", "corrupt", {}) {}

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return count; }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    std::fill(payload.begin(), payload.end(), std::byte{1});
    return values.count;
  }
  void do_decode(std::span<const std::byte>, DType, View, Into, double) const override {
    throw Error(ErrorCode::corrupt_data, "this payload is corrupt");
  }
};

/// Elements as they are, but that one rank's decoder gives up when a result comes: what that rank alone knows
/// of.
class CorruptOnce final : public Codec {
 public:
  explicit CorruptOnce(int decodes) : Codec("corrupt_once", "corrupt_once", {}), decodes_(decodes) {}

 private:
  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return 4 * count; }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    std::memcpy(payload.data(), values.data, 4 * values.count);
    return 4 * values.count;
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into into, double) const override {
    if (decodes_-- == 0) throw Error(ErrorCode::corrupt_data, "this result is corrupt");
    for (std::size_t i = 0; i < out.count; ++i) {
      float value = 0;
      std::memcpy(&value, payload.data() + 4 * i, 4);
      float& to = static_cast<float*>(out.data)[i];
      to = into == Into::add ? to + value : value;
    }
  }
  mutable int decodes_;
};

/// One rank's says that it has written more than it had announced: no message of it is sent.
class Overlong final : public Codec {
 public:
  explicit Overlong(std::size_t more) : Codec("overlong", "overlong", {}), more_(more) {}

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return count; }
  std::optional<std::size_t> do_encode(ConstView values, DType, const EncodeContext&,
                                       std::span<std::byte> payload) const override {
    std::fill_n(payload.begin(), values.count, std::byte{1});
    return values.count + more_;
  }
  void do_decode(std::span<const std::byte>, DType, View out, Into into, double) const override {
    auto* to = static_cast<float*>(out.data);
    for (std::size_t i = 0; i < out.count; ++i) to[i] = into == Into::add ? to[i] + 1 : 1;
  }
  std::size_t more_;
};

TEST(Faults, ACodecThatWritesMoreThanItAnnouncesIsFound) {
  for (const std::string algorithm : {"two_phase", "gather"}) {
    Communicator world(MPI_COMM_WORLD);
    const bool finder = world.rank() == 1;
    std::vector<float> data(kCount, 1.0f);
    CallOptions options = compressing(std::make_shared<Overlong>(finder ? 4096 : 0));
    options.policy.algorithm = algorithm;
    const std::string error = error_of([&] { world.allreduce(view(data), Op::average, options); });
    EXPECT_NE(error, "") << algorithm;
    if (finder) {
      EXPECT_TRUE(is_error(error, "invalid_state", {"codec overlong", "do_max_bytes"})) << algorithm;
    }
  }
}

/// What one rank alone has found, the next call tells all, if it begins with an agreement; one that does not
/// must not leave the others waiting.
TEST(Faults, WhatOneRankHasFoundIsToldByTheNextCall) {
  Communicator world(MPI_COMM_WORLD);
  const bool finder = world.rank() == 1;
  std::vector<float> data(kCount, 1.0f);
  // first come the decodes of all ranks' parts, then those of the results
  const auto codec = std::make_shared<CorruptOnce>(finder ? world.size() : -1);
  const std::string found = error_of([&] { world.allreduce(view(data), Op::average, compressing(codec)); });
  EXPECT_TRUE(finder ? is_error(found, "corrupt_data", {"this result is corrupt"})
                     : testing::AssertionResult(found.empty()) << found);
  std::vector<float> few(3, 2.0f);
  const std::string small = error_of([&] { world.allreduce(view(few), Op::sum); });
  EXPECT_TRUE(finder ? is_error(small, "communication", {"this result is corrupt"})
                     : testing::AssertionResult(small.empty()) << small);
  EXPECT_TRUE(finder || few[0] == 2.0f * static_cast<float>(world.size())) << few[0];
  const std::string next = error_of([&] { world.allreduce(view(data), Op::average, compressing("onebit")); });
  EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, next));
  EXPECT_TRUE(is_error(next, "communication", {"rank 1", "this result is corrupt"}));
}

TEST(Faults, ACommunicatorOnlyRefusesFromThenOn) {
  for (const Check how : {Check::call, Check::payload}) {
    Communicator world(MPI_COMM_WORLD);
    std::vector<float> data(kCount, 1.0f);
    CallOptions options = compressing(std::make_shared<Corrupt>());
    options.policy.check = how;
    const std::string error = error_of([&] { world.allreduce(view(data), Op::average, options); });
    EXPECT_TRUE(is_error(error, "corrupt_data", {"this payload is corrupt"}));
    options = compressing("onebit:block=64");
    for (const CallOptions& next : {options, CallOptions{.policy = {.algorithm = "exact"}}, CallOptions{}}) {
      const std::string refusal = error_of([&] { world.allreduce(view(data), Op::sum, next); });
      EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, refusal));
      EXPECT_TRUE(is_error(refusal, "communication", {"not usable any more", "this payload is corrupt"}));
    }
    std::vector<float> few(3, 1.0f);
    EXPECT_TRUE(
        is_error(error_of([&] { world.allreduce(view(few), Op::sum); }), "communication", {"not usable"}));
  }
}

}  // namespace
}  // namespace terse::test
