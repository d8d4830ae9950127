// SPDX-License-Identifier: Apache-2.0
// ranks: 2
//
// A count that int does not hold, in a call that is MPI's. Needs memory: left out, with the reason, where
// there is not enough.
#include "check.h"

// As rank 0 sees it.
static unsigned long long available_kib(void) {
  unsigned long long kib = 0;
  char line[256];
  FILE* info = world_rank == 0 ? fopen("/proc/meminfo", "r") : NULL;
  while (info != NULL && fgets(line, sizeof line, info) != NULL) {
    if (strncmp(line, "MemAvailable:", 13) == 0) kib = strtoull(line + 13, NULL, 10);
  }
  if (info != NULL) fclose(info);
  MPI_Bcast(&kib, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
  return kib;
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  if (available_kib() >= 12ull << 20) {
    const size_t count = ((size_t)1 << 31) + 17, stride = 4099;
    signed char* data = malloc(count);
    int has_memory = data != NULL;
    MPI_Allreduce(MPI_IN_PLACE, &has_memory, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
    if (CHECK(has_memory)) {
      memset(data, 0, count);
      for (size_t i = 0; i < count; i += stride)
        data[i] = (signed char)(i / stride % 100 + (size_t)world_rank);
      data[count - 1] = (signed char)(7 + world_rank);
      CHECK_INT(
          Terse_Allreduce_c(MPI_IN_PLACE, data, (MPI_Count)count, MPI_SIGNED_CHAR, MPI_MAX, MPI_COMM_WORLD),
          MPI_SUCCESS);
      Terse_Request request = TERSE_REQUEST_NULL;  // once more, of which the maxima know nothing
      CHECK_INT(Terse_Iallreduce_c(MPI_IN_PLACE, data, (MPI_Count)count, MPI_SIGNED_CHAR, MPI_MAX,
                                   MPI_COMM_WORLD, &request),
                MPI_SUCCESS);
      CHECK_INT(Terse_Wait(&request), MPI_SUCCESS);
      for (size_t i = 0; i + 1 < count; i += stride) CHECK_INT(data[i], i / stride % 100 + 1);
      CHECK_INT(data[1], 0);
      CHECK_INT(data[count - 1], 8);
      Terse_Outcome outcome;
      CHECK_INT(Terse_Get_outcome(MPI_COMM_WORLD, &outcome), MPI_SUCCESS);
      CHECK_INT(outcome.reason, TERSE_REASON_PASSED_ON);
      CHECK_INT(outcome.exact_count, count);
    }
    free(data);
  } else if (world_rank == 0) {
    printf("skipped: needs 12 GiB of free memory\n");
  }
  return check_end();
}
