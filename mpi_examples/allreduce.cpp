// SPDX-License-Identifier: Apache-2.0
//
// The smallest complete program: averages a gradient over all ranks for a thirty-second of the bytes.
//   mpirun -np 4 allreduce

#include <mpi.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <iostream>
#include <terse/terse.hpp>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int same = 1;
  {
    terse::Communicator world(MPI_COMM_WORLD);
    terse::Feedback residual;  // one for each tensor: what the codec left out goes in with the next step
    std::vector<float> gradient(1 << 20);
    for (int step = 0; step < 3; ++step) {
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        gradient[i] = static_cast<float>(std::sin(0.001 * static_cast<double>(i) + step + world.rank()));
      }
      const terse::Outcome outcome =
          world.allreduce({terse::view(gradient), &residual}, terse::Op::average,
                          {.policy = {.codec = "onebit", .algorithm = "two_phase"}});
      if (world.rank() == 0) {
        std::cout << "step " << step << ": " << terse::name(outcome.result) << ", " << outcome.bytes_sent
                  << " bytes sent for a gradient of " << terse::view(gradient).bytes() << std::endl;
      }
      std::vector<float> of_rank_0 = gradient;  // all ranks must hold the same
      MPI_Bcast(of_rank_0.data(), static_cast<int>(of_rank_0.size()), MPI_FLOAT, 0, MPI_COMM_WORLD);
      same = same && std::memcmp(of_rank_0.data(), gradient.data(), terse::view(gradient).bytes()) == 0;
    }
  }
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  MPI_Finalize();
  return same ? 0 : 1;
}
