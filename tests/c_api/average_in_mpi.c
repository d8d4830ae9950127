// SPDX-License-Identifier: Apache-2.0
//
// MPI's own call with Terse's operation: a sentence says what to do, and the program ends.
#include <mpi.h>
#include <terse/terse.h>

int main(int argc, char** argv) {
  float value = 1, average = 0;
  MPI_Init(&argc, &argv);
  MPI_Allreduce(&value, &average, 1, MPI_FLOAT, Terse_Op_average(), MPI_COMM_WORLD);
  MPI_Finalize();
  return 0;
}
