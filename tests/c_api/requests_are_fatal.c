// SPDX-License-Identifier: Apache-2.0
//
// MPI's default: what one rank does wrong as it begins a call ends the program as it ends, with a sentence.
#include "check.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  static float in[1000], out[1000];
  Terse_Request request = TERSE_REQUEST_NULL;
  set_onebit(MPI_COMM_WORLD);
  Terse_Iallreduce(world_rank == 1 ? NULL : in, out, 1000, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, &request);
  Terse_Wait(&request);
  MPI_Finalize();
  return EXIT_SUCCESS;
}
