// SPDX-License-Identifier: Apache-2.0
// ranks: 1 2 3
//
// Two threads, each with a communicator of its own, at once; Terse's handles are first asked for by both.
#include <pthread.h>

#include "check.h"

enum { kCount = 1000, kSteps = 200 };

typedef struct Work {
  MPI_Comm comm;
  float value;
  int wrong;
  int refused;
} Work;

static void* work(void* argument) {
  Work* mine = argument;
  static const char* const pairs[] = {
      "terse_codec", "onebit:block=64", "terse_algorithm", "two_phase", "terse_min_bytes", "0", NULL};
  float* data = malloc(sizeof(float) * kCount);
  Terse_Feedback feedback;
  mine->wrong += Terse_Feedback_create(&feedback) != MPI_SUCCESS;
  mine->wrong += set_options(mine->comm, pairs) != MPI_SUCCESS;
  const Terse_Options options = {.size = sizeof options, .feedback = feedback};
  for (int step = 0; step < kSteps; ++step) {
    MPI_Comm passing;
    for (int i = 0; i < kCount; ++i) data[i] = mine->value;
    mine->wrong += Terse_Allreduce_with(MPI_IN_PLACE, data, kCount, MPI_FLOAT, Terse_Op_average(), mine->comm,
                                        &options) != MPI_SUCCESS;
    for (int i = 0; i < kCount; ++i) mine->wrong += data[i] != mine->value;
    // sentences are each thread's own
    char text[TERSE_MAX_ERROR_STRING];
    int length = 0;
    const int count = mine->value > 1.5f ? -2 : -1;
    const int code = Terse_Allreduce(data, data, count, MPI_FLOAT, MPI_SUM, mine->comm);
    mine->refused += Terse_Error_code(code) == TERSE_ERR_INVALID_ARGUMENT;
    Terse_Error_string(code, text, &length);
    mine->wrong += strstr(text, count == -2 ? "the count is -2" : "the count is -1") == NULL;
    if (step % 20 != 0) continue;
    MPI_Comm_dup(mine->comm, &passing);
    mine->wrong +=
        Terse_Allreduce(MPI_IN_PLACE, data, kCount, MPI_FLOAT, Terse_Op_average(), passing) != MPI_SUCCESS;
    for (int i = 0; i < kCount; ++i) mine->wrong += data[i] != mine->value;
    MPI_Comm_free(&passing);
  }
  mine->wrong += Terse_Feedback_free(&feedback) != MPI_SUCCESS;
  free(data);
  return NULL;
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  int provided = MPI_THREAD_SINGLE;
  MPI_Query_thread(&provided);
  if (provided == MPI_THREAD_MULTIPLE) {
    Work works[2];
    pthread_t threads[2];
    for (int t = 0; t < 2; ++t) {
      works[t].value = (float)(t + 1);
      works[t].wrong = works[t].refused = 0;
      MPI_Comm_dup(MPI_COMM_WORLD, &works[t].comm);
    }
    for (int t = 0; t < 2; ++t) CHECK_INT(pthread_create(&threads[t], NULL, work, &works[t]), 0);
    for (int t = 0; t < 2; ++t) CHECK_INT(pthread_join(threads[t], NULL), 0);
    for (int t = 0; t < 2; ++t) {
      CHECK_INT(works[t].wrong, 0);
      CHECK_INT(works[t].refused, kSteps);
      MPI_Comm_free(&works[t].comm);
    }
  } else if (world_rank == 0) {
    printf("skipped: this MPI does not provide MPI_THREAD_MULTIPLE\n");
  }
  return check_end();
}
