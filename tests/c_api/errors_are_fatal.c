// SPDX-License-Identifier: Apache-2.0
//
// A wrong call with MPI's default handler: the sentence is on stderr before MPI ends the program.
#include <mpi.h>
#include <terse/terse.h>

int main(int argc, char** argv) {
  static float data[1000];
  int rank = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Terse_Allreduce(rank == 1 ? NULL : MPI_IN_PLACE, data, 1000, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  MPI_Finalize();
  return 0;
}
