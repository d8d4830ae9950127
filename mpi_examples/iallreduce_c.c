// SPDX-License-Identifier: Apache-2.0
//
// Overlap in C: one layer's gradient is averaged while the next one is computed.
//   mpirun -np 4 iallreduce_c [CODEC]
// First by nonblocking calls with a Terse_Feedback for each layer, then by persistent requests, which are
// made once and keep residuals of their own. Both give bit-identical results.

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <terse/terse.h>

enum { kLayers = 4, kCount = 1 << 18, kSteps = 3 };
static float gradient[kLayers][kCount], result[kSteps][kLayers][kCount];
static int rank = 0, wrong = 0;

// The first thing that goes wrong is said, and nothing begun from then on.
static void must(int code) {
  char sentence[TERSE_MAX_ERROR_STRING];
  int length = 0;
  if (code == MPI_SUCCESS || wrong) return;
  wrong = 1;
  Terse_Error_string(code, sentence, &length);
  if (rank == 0) fprintf(stderr, "%s\n", sentence);
}

static void compute(int layer, int step) {
  for (int i = 0; i < kCount; ++i) gradient[layer][i] = (float)sin(0.001 * i + step + 3 * layer + rank);
}

static void by_nonblocking_calls(void) {
  Terse_Feedback residuals[kLayers];
  Terse_Request requests[kLayers];
  for (int l = 0; l < kLayers; ++l) {
    requests[l] = TERSE_REQUEST_NULL;
    residuals[l] = TERSE_FEEDBACK_NULL;
    must(Terse_Feedback_create(&residuals[l]));
  }
  for (int step = 0; step < kSteps && !wrong; ++step) {
    for (int l = kLayers - 1; l >= 0; --l) {  // as gradients come
      compute(l, step);
      const Terse_Options options = {.size = sizeof options, .feedback = residuals[l]};
      must(Terse_Iallreduce_with(MPI_IN_PLACE, gradient[l], kCount, MPI_FLOAT, Terse_Op_average(),
                                 MPI_COMM_WORLD, &options, &requests[l]));
    }
    must(Terse_Waitall(kLayers, requests));
    memcpy(result[step], gradient, sizeof gradient);
  }
  for (int l = 0; l < kLayers; ++l) must(Terse_Feedback_free(&residuals[l]));
}

// Returns whether the results are those of the nonblocking calls.
static int by_persistent_requests(void) {
  Terse_Request requests[kLayers];
  int same = 1, done = 0;
  for (int l = 0; l < kLayers; ++l) {
    requests[l] = TERSE_REQUEST_NULL;
    must(Terse_Allreduce_init(MPI_IN_PLACE, gradient[l], kCount, MPI_FLOAT, Terse_Op_average(),
                              MPI_COMM_WORLD, MPI_INFO_NULL, &requests[l]));
  }
  for (int step = 0; step < kSteps && !wrong; ++step) {
    for (int l = kLayers - 1; l >= 0; --l) {
      compute(l, step);
      must(Terse_Start(&requests[l]));
      // A test now and then makes progress with all that is under way; terse_progress=thread does without.
      must(Terse_Test(&requests[kLayers - 1], &done));
    }
    must(Terse_Waitall(kLayers, requests));
    same = same && memcmp(result[step], gradient, sizeof gradient) == 0;
  }
  for (int l = 0; l < kLayers; ++l) must(Terse_Request_free(&requests[l]));
  return same;
}

int main(int argc, char** argv) {
  int same = 1;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);

  MPI_Info info;
  MPI_Info_create(&info);
  MPI_Info_set(info, "terse_codec", argc > 1 ? argv[1] : "onebit");
  MPI_Info_set(info, "terse_algorithm", "two_phase");
  must(Terse_Comm_set_info(MPI_COMM_WORLD, info));
  MPI_Info_free(&info);

  if (!wrong) by_nonblocking_calls();
  if (!wrong) same = by_persistent_requests();
  MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  if (rank == 0 && !wrong) {
    Terse_Outcome outcome;
    Terse_Get_outcome(MPI_COMM_WORLD, &outcome);
    printf(
        "%d layers in %d steps, %s: %llu bytes sent for a gradient of %zu; nonblocking and persistent: %s\n",
        kLayers, kSteps, outcome.result == TERSE_RESULT_COMPRESSED ? "compressed" : "exact",
        (unsigned long long)outcome.bytes_sent, sizeof gradient[0], same ? "the same bits" : "NOT THE SAME");
  }
  MPI_Finalize();
  return wrong || !same;
}
