// SPDX-License-Identifier: Apache-2.0
//
// main() of the test programs that run under mpirun. Rank 0 prints as usual, the others only what fails. All
// ranks exit with the same status. A test that does not end is named, with its rank, its threads show
// their stacks, and the run is aborted.

#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <string>

#include "support/watchdog.hpp"

namespace {

int world_rank = 0;
int world_size = 1;

std::string name_of(const testing::TestInfo& test) {
  return std::string(test.test_suite_name()) + "." + test.name();
}

using terse::test::Watchdog;

/// Keeps ranks in step from test to test and prints what rank 0's printer cannot see.
class RankListener : public testing::EmptyTestEventListener {
 public:
  RankListener(Watchdog& watchdog, MPI_Comm comm) : watchdog_(watchdog), comm_(comm) {}

 private:
  void OnTestStart(const testing::TestInfo& test) override {
    test_ = name_of(test);
    watchdog_.now_at(test_);
  }
  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (world_rank == 0 || !part.failed()) return;
    // gtest holds its lock here: ask it nothing
    std::fprintf(stderr, "[rank %d] %s:%d: failure in %s\n%s\n", world_rank,
                 part.file_name() ? part.file_name() : "?", part.line_number(), test_.c_str(),
                 part.message());
    std::fflush(stderr);
  }
  void OnTestEnd(const testing::TestInfo& test) override {
    watchdog_.now_at("the end of " + name_of(test));
    int failed = test.result()->Failed() ? 1 : 0;
    int failures = 0;
    MPI_Allreduce(&failed, &failures, 1, MPI_INT, MPI_SUM, comm_);
    if (world_rank == 0 && failures > 0 && !failed) {
      std::fprintf(stderr, "%s failed on %d rank(s) other than 0\n", name_of(test).c_str(), failures);
    }
  }

  Watchdog& watchdog_;
  MPI_Comm comm_;
  std::string test_ = "no test";
};

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  testing::InitGoogleTest(&argc, argv);
  int seed = testing::GTEST_FLAG(random_seed);
  if (seed == 0)
    seed = 1 + static_cast<int>(std::chrono::steady_clock::now().time_since_epoch().count() % 99999);
  MPI_Bcast(&seed, 1, MPI_INT, 0, MPI_COMM_WORLD);
  testing::GTEST_FLAG(random_seed) = seed;  // shuffled tests come in one order on all ranks

  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  int failed = 0;
  {
    Watchdog watchdog(world_rank);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (world_rank != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankListener(watchdog, comm));
    failed = RUN_ALL_TESTS() == 0 ? 0 : 1;
    watchdog.now_at("the end of the program");
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, comm);
    MPI_Comm_free(&comm);
    if (provided != MPI_THREAD_MULTIPLE && world_rank == 0) {
      std::fprintf(stderr, "note: this MPI does not provide MPI_THREAD_MULTIPLE\n");
    }
    MPI_Finalize();
  }
  return failed;
}
