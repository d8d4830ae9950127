// SPDX-License-Identifier: Apache-2.0
//
// One rank under mpirun hangs while the others wait for it: the test asks for its name.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>
#include <string_view>

#include "support/mpi_ranks.hpp"
#include "watchdog/hang.hpp"

namespace terse::test {
namespace {

/// The others' patience is longer, or one of them might lose it first and end the run before rank 1 has
/// spoken. main() reads it, before MPI says who is who: the launcher does.
[[maybe_unused]] const bool is_patient = [] {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"}) {
    const char* rank = std::getenv(variable);
    if (rank && std::string_view(rank) != "1") return setenv("TERSE_TEST_TIMEOUT_S", "60", 1) == 0;
  }
  return false;
}();

TEST(Watchdog, OneRankHangs) {
  if (world_rank() == 1) hangs_on_purpose();
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace
}  // namespace terse::test
