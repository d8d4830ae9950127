// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints: residuals are saved in mid-run, loaded by the same ranks with bit-identical results, and by
// fewer without loss.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/exact.hpp"
#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

constexpr std::size_t kCount = 700;

Tensor input(DType dtype, int step) {
  return {normal_values(kCount, dtype, static_cast<std::uint64_t>(step), world_rank()), dtype};
}

TEST(FeedbackMpi, ACheckpointInMidRunGoesOnToTheBit) {
  Communicator world(MPI_COMM_WORLD);
  for (const DType dtype : kAllDTypes) {
    Feedback feedback;
    Feedback loaded;
    std::vector<std::byte> saved;
    for (int step = 0; step < 6; ++step) {
      if (step == 3) {
        saved = feedback.save();
        loaded.load(saved);
        EXPECT_EQ(loaded.save(), saved);
        EXPECT_EQ(loaded.calls(), 3u);
      }
      Tensor data = input(dtype, step);
      world.allreduce(data.view(), Op::average, compressing("onebit:block=64", &feedback));
      if (step < 3) continue;
      Tensor again = input(dtype, step);
      world.allreduce(again.view(), Op::average, compressing("onebit:block=64", &loaded));
      ASSERT_TRUE(again.same_bits(data)) << name(dtype) << " step " << step;
    }
    EXPECT_EQ(loaded.save(), feedback.save());
  }
}

/// From all ranks to one: what one rank alone then owes is what all owed together.
TEST(FeedbackMpi, ReshardingToOneRankConservesWhatIsOwed) {
  Communicator world(MPI_COMM_WORLD);
  Communicator self(MPI_COMM_SELF);
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    Feedback feedback;
    for (int step = 0; step < 3; ++step) {
      Tensor data = input(dtype, step);
      world.allreduce(data.view(), Op::average, compressing("onebit:block=64", &feedback));
    }
    const auto saves = gather_all(MPI_COMM_WORLD, feedback.save());
    // mean e + s, from the residuals as every rank shows them
    std::vector<double> owed(kCount, 0.0);
    const auto worker = doubles_of(feedback.worker());
    const auto server = doubles_of(feedback.server());
    for (std::size_t i = 0; i < kCount; ++i) owed[i] = worker[i] / world_size();
    for (std::size_t k = 0; k < server.size(); ++k) owed[feedback.server_begin() + k] += server[k];
    MPI_Allreduce(MPI_IN_PLACE, owed.data(), kCount, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);

    Feedback alone;
    alone.load(std::span<const std::vector<std::byte>>(saves));
    Tensor data = input(dtype, 10);
    const auto x = data.doubles();
    self.allreduce(data.view(), Op::average, compressing("onebit:block=64", &alone));
    const auto e = doubles_of(alone.worker());
    const auto s = doubles_of(alone.server());
    ASSERT_EQ(s.size(), kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      const double slack = 16 * unit_roundoff(accumulator_of(dtype)) *
                           (std::abs(x[i]) + std::abs(owed[i]) + std::abs(s[i]) + std::abs(e[i]) + 1);
      ASSERT_NEAR(data[i] + e[i] + s[i], x[i] + owed[i], slack) << i;
    }
    EXPECT_EQ(alone.calls(), 4u);
  }
}

/// And to the ranks of a part, which go on together.
TEST(FeedbackMpi, ReshardingToAPart) {
  if (world_size() < 3) return;
  Communicator world(MPI_COMM_WORLD);
  Feedback feedback;
  Tensor data = input(DType::f32, 1);
  world.allreduce(data.view(), Op::average, compressing("onebit:block=64", &feedback));
  const auto saves = gather_all(MPI_COMM_WORLD, feedback.save());
  const bool inside = world_rank() < world_size() - 1;
  const SubComm part(inside ? 0 : MPI_UNDEFINED, world_rank());
  if (!inside) return;
  Communicator comm(part.get());
  Feedback fewer;
  EXPECT_TRUE(is_error(error_of([&] {
                         fewer.load(
                             std::span<const std::byte>(saves[static_cast<std::size_t>(world_rank())]));
                         Tensor again = input(DType::f32, 2);
                         comm.allreduce(again.view(), Op::average, compressing("onebit:block=64", &fewer));
                       }),
                       "invalid_state", {std::to_string(world_size()), std::to_string(comm.size())}))
      << "one rank's save is for the same number of ranks";
  fewer.load(std::span<const std::vector<std::byte>>(saves));
  Tensor again = input(DType::f32, 2);
  comm.allreduce(again.view(), Op::average, compressing("onebit:block=64", &fewer));
  EXPECT_TRUE(same_on_all(part.get(), again.bytes()));
  EXPECT_EQ(fewer.calls(), 2u);
}

TEST(FeedbackMpi, ForeignBytesLeaveTheRunAsItWas) {
  Communicator world(MPI_COMM_WORLD);
  Feedback feedback;
  Tensor data = input(DType::f32, 1);
  world.allreduce(data.view(), Op::average, compressing("onebit:block=64", &feedback));
  const auto held = feedback.save();
  for (const std::size_t bytes : {1u, 16u, 100u, 10000u}) {
    std::vector<std::byte> noise(bytes);
    for (std::size_t i = 0; i < bytes; ++i) noise[i] = static_cast<std::byte>(i * 37 + 11);
    EXPECT_TRUE(
        is_error(error_of([&] { feedback.load(std::span<const std::byte>(noise)); }), "corrupt_data"));
  }
  EXPECT_EQ(feedback.save(), held);
  Tensor next = input(DType::f32, 2);
  world.allreduce(next.view(), Op::average, compressing("onebit:block=64", &feedback));
  EXPECT_EQ(feedback.calls(), 2u);
}

}  // namespace
}  // namespace terse::test
