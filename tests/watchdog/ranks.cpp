// SPDX-License-Identifier: Apache-2.0
//
// One rank under mpirun hangs while the others wait for it: the test asks for its name.
#include <gtest/gtest.h>
#include <mpi.h>

#include "support/mpi_ranks.hpp"
#include "watchdog/hang.hpp"

namespace terse::test {
namespace {

TEST(Watchdog, OneRankHangs) {
  if (world_rank() == 1) hangs_on_purpose();
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace
}  // namespace terse::test
