/* SPDX-License-Identifier: Apache-2.0
   A user's program in C: one allreduce in the shape of MPI_Allreduce. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <terse/terse.h>

enum { kCount = 100000 };

int main(int argc, char** argv) {
  float* gradient = malloc(kCount * sizeof(float));
  float* sum = malloc(kCount * sizeof(float));
  int right = 0;
  int rank = 0;
  int size = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (gradient != NULL && sum != NULL) {
    int i;
    for (i = 0; i < kCount; ++i) gradient[i] = 2.0f;
    right = Terse_Allreduce(gradient, sum, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS;
    for (i = 0; i < kCount; ++i) right = right && sum[i] == 2.0f * (float)size;
  }
  if (rank == 0) printf("Terse from C on %d ranks: %s\n", size, right ? "right" : "WRONG");
  MPI_Finalize();
  free(gradient);
  free(sum);
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
