// SPDX-License-Identifier: Apache-2.0
// A user's program: one compressed allreduce. Its inputs have one magnitude, so that onebit loses nothing.
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <terse/terse.hpp>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  bool right = true;
  {
    terse::Communicator world{MPI_COMM_WORLD};
    std::vector<float> gradient(100'000, 2.0f);
    terse::Feedback residual;
    const terse::Outcome outcome = world.allreduce({terse::view(gradient), &residual}, terse::Op::average,
                                                   {.policy = {.codec = "onebit", .min_bytes = 0}});
    for (const float value : gradient) right = right && value == 2.0f;
    right = right && outcome.result == terse::Outcome::Result::compressed;
    if (world.rank() == 0) {
      std::printf("Terse %s on %d ranks: %s\n", terse::version(), world.size(), right ? "right" : "WRONG");
    }
  }
  MPI_Finalize();
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
