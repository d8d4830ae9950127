// SPDX-License-Identifier: Apache-2.0
//
// Messages that do not arrive as they were sent, under mpirun: the same named error on all ranks, and from
// then on a refusal on all ranks. ranks: 2 3 5
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "collective/allreduce.hpp"
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
};

/// A few calls in a row over a transport with a fault; a rank whose call failed says so in those that follow,
/// as a Communicator does.
Result calls(const std::string& spec, bool checksum, bool with_nan, const FaultPlan& plan) {
  MpiTransport mpi(MPI_COMM_WORLD);
  Result result;
  {
    FaultyTransport t(mpi, plan);
    Workspace workspace;
    Feedback feedback;
    std::optional<Error> broken;
    for (std::size_t c = 0; c < kCalls; ++c) {
      Tensor data(exact_values(kCount, DType::f32, c + 1, t.rank()), DType::f32);
      if (with_nan && c == 1 && t.rank() == 0) data.set(kCount - 1, std::nan(""));
      Call call;
      call.in = call.out = data.view();
      call.codec = make_codec(spec);
      call.algorithm = &find_algorithm("two_phase");
      call.op = Op::average;
      call.feedback = &feedback;
      call.segment_bytes = 1200;
      call.checksum = checksum;
      call.failure = broken;
      result.errors.push_back(error_of([&] { allreduce(t, call, workspace); }));
      if (!broken && !result.errors.back().empty()) broken.emplace(ErrorCode::communication, "broken");
      result.out.push_back(data);
    }
    result.altered = t.altered();
  }
  mpi.free();
  return result;
}

bool anywhere(bool here) {
  int any = here ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return any != 0;
}

void check(const std::string& spec, bool checksum, bool with_nan, const FaultPlan& plan) {
  SCOPED_TRACE(spec + (checksum ? ", checksum" : "") + (with_nan ? ", NaN; " : "; ") + text_of(plan));
  const Result sound = calls(spec, checksum, with_nan, {.rank = -1});
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
}

void check_all(bool checksum) {
  std::uint64_t seed = 0;
  for (const char* spec : {"onebit:block=64", "identity", "cast:bf16"}) {
    for (const bool with_nan : {false, true}) {
      for (const Fault fault : kAllFaults) {
        for (const int channel : {0, 1, kLastWord, kTagsOfAPass, kTagsOfAPass + 1}) {
          if (channel >= kLastWord && !with_nan) continue;
          ++seed;
          check(spec, checksum, with_nan,
                {.fault = fault,
                 .rank = static_cast<int>(seed % static_cast<std::uint64_t>(world_size())),
                 .channel = channel,
                 .nth = channel >= kLastWord ? 0 : seed % 4,
                 .seed = seed});
          if (anywhere(testing::Test::HasFailure())) return;
        }
      }
    }
  }
}

TEST(Faults, WithChecksumsEndInOneErrorOnAllRanks) { check_all(true); }

TEST(Faults, WithoutChecksumsNeverHang) { check_all(false); }

/// A codec whose messages its own decoder refuses: what bytes that changed on the way are to a Communicator.
class Spoilt final : public Codec {
 public:
  Spoilt() : Codec("spoilt", "spoilt", {}) {}

 private:
  bool do_supports(DType) const noexcept override { return true; }
  std::size_t do_max_bytes(std::size_t count, DType) const override { return count; }
  std::optional<std::size_t> do_encode(ConstView values, DType, std::span<std::byte> payload) const override {
    std::fill(payload.begin(), payload.end(), std::byte{1});
    return values.count;
  }
  void do_decode(std::span<const std::byte>, DType, View, Into, double) const override {
    throw Error(ErrorCode::corrupt_data, "this payload is spoilt");
  }
};

TEST(Faults, ACommunicatorOnlyRefusesFromThenOn) {
  for (const Check how : {Check::call, Check::payload}) {
    Communicator world(MPI_COMM_WORLD);
    std::vector<float> data(kCount, 1.0f);
    AllreduceOptions options = compressing(std::make_shared<Spoilt>());
    options.check = how;
    const std::string error = error_of([&] { world.allreduce(view(data), options); });
    EXPECT_TRUE(is_error(error, "corrupt_data", {"this payload is spoilt"}));
    options = compressing("onebit:block=64");
    for (const AllreduceOptions& next :
         {options, AllreduceOptions{.algorithm = "exact"}, AllreduceOptions{}}) {
      const std::string refusal = error_of([&] { world.allreduce(view(data), next); });
      EXPECT_TRUE(same_on_all(MPI_COMM_WORLD, refusal));
      EXPECT_TRUE(is_error(refusal, "communication", {"not usable any more", "this payload is spoilt"}));
    }
    std::vector<float> few(3, 1.0f);
    EXPECT_TRUE(is_error(error_of([&] { world.allreduce(view(few)); }), "communication", {"not usable"}));
  }
}

}  // namespace
}  // namespace terse::test
