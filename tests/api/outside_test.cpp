// SPDX-License-Identifier: Apache-2.0
//
// Communicators before MPI_Init and after MPI_Finalize. One process without a launcher, so the order of
// events is ours.
#include <gtest/gtest.h>
#include <mpi.h>

#include <optional>
#include <string>
#include <vector>

#include "support/mpi_ranks.hpp"

namespace terse::test {
namespace {

TEST(OutsideMpi, EveryUseIsRefusedAndNothingCrashes) {
  EXPECT_TRUE(is_error(error_of([] { Communicator c(MPI_COMM_WORLD); }), "invalid_state", {"MPI_Init"}));

  // what needs no MPI works without it
  EXPECT_EQ(make_codec("onebit")->name(), "onebit");
  Feedback feedback;
  EXPECT_EQ(feedback.calls(), 0u);

  ASSERT_EQ(MPI_Init(nullptr, nullptr), MPI_SUCCESS);
  std::optional<Communicator> kept(std::in_place, MPI_COMM_WORLD);
  std::optional<Communicator> destroyed(std::in_place, MPI_COMM_WORLD);
  Communicator freed(MPI_COMM_SELF);
  std::vector<float> data(100, 2.0f);
  EXPECT_EQ(kept->allreduce(view(data), Op::average, compressing("onebit:block=8", &feedback)).result,
            Outcome::Result::compressed);
  EXPECT_EQ(data[99], 2.0f);
  freed.free();
  MPI_Finalize();

  EXPECT_TRUE(
      is_error(error_of([&] { kept->allreduce(view(data), Op::sum); }), "invalid_state", {"MPI_Finalize"}));
  EXPECT_TRUE(is_error(error_of([&] { static_cast<void>(kept->rank()); }), "invalid_state"));
  EXPECT_TRUE(is_error(error_of([] { Communicator c(MPI_COMM_WORLD); }), "invalid_state", {"MPI_Finalize"}));
  destroyed.reset();
  Communicator moved(std::move(*kept));
  moved.free();
  freed.free();
  EXPECT_EQ(feedback.calls(), 1u) << "a Feedback outlives MPI";
  EXPECT_FALSE(feedback.save().empty());
}

}  // namespace
}  // namespace terse::test
