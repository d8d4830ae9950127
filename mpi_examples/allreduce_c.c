// SPDX-License-Identifier: Apache-2.0
//
// The same in C: averages a gradient over all ranks for a thirty-second of the bytes.
//   mpirun -np 4 allreduce_c [CODEC]

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <terse/terse.h>

enum { kCount = 1 << 20 };
static float gradient[kCount], of_rank_0[kCount];

// Says what went wrong; a program that keeps MPI's default handler needs none of this.
static int failed(int rank, int code) {
  char sentence[TERSE_MAX_ERROR_STRING];
  int length = 0;
  if (code == MPI_SUCCESS) return 0;
  Terse_Error_string(code, sentence, &length);
  if (rank == 0) fprintf(stderr, "%s\n", sentence);
  return 1;
}

int main(int argc, char** argv) {
  int rank = 0, same = 1;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);

  MPI_Info info;
  MPI_Info_create(&info);
  MPI_Info_set(info, "terse_codec", argc > 1 ? argv[1] : "onebit");
  MPI_Info_set(info, "terse_algorithm", "two_phase");
  int wrong = failed(rank, Terse_Comm_set_info(MPI_COMM_WORLD, info));
  MPI_Info_free(&info);

  // one for each tensor: what the codec left out goes in later
  Terse_Feedback residual = TERSE_FEEDBACK_NULL;
  if (!wrong) wrong = failed(rank, Terse_Feedback_create(&residual));
  const Terse_Options options = {.size = sizeof options, .feedback = residual};
  for (int step = 0; step < 3 && !wrong; ++step) {
    for (int i = 0; i < kCount; ++i) gradient[i] = (float)sin(0.001 * i + step + rank);
    wrong = failed(rank, Terse_Allreduce_with(MPI_IN_PLACE, gradient, kCount, MPI_FLOAT, Terse_Op_average(),
                                              MPI_COMM_WORLD, &options));
    if (wrong) break;
    Terse_Outcome outcome;
    Terse_Get_outcome(MPI_COMM_WORLD, &outcome);
    if (rank == 0) {
      printf("step %d: %s by %s, %llu bytes sent for a gradient of %zu\n", step,
             outcome.result == TERSE_RESULT_COMPRESSED ? "compressed" : "exact", outcome.algorithm,
             (unsigned long long)outcome.bytes_sent, sizeof gradient);
    }
    memcpy(of_rank_0, gradient, sizeof gradient);  // all ranks must hold the same
    MPI_Bcast(of_rank_0, kCount, MPI_FLOAT, 0, MPI_COMM_WORLD);
    same = same && memcmp(of_rank_0, gradient, sizeof gradient) == 0;
  }
  Terse_Feedback_free(&residual);
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  MPI_Finalize();
  return wrong || !same;
}
