// SPDX-License-Identifier: Apache-2.0
#ifndef TERSE_TESTS_C_API_CHECK_H
#define TERSE_TESTS_C_API_CHECK_H

// What the C tests have in common. A check that fails says where and on which rank, and the test goes on.
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <terse/terse.h>

static int check_failures = 0;
static int world_rank = 0;
static int world_size = 1;

#define CHECK(condition) check_that((condition) != 0, #condition, __FILE__, __LINE__)
#define CHECK_INT(got, want) check_ints((long long)(got), (long long)(want), #got, __FILE__, __LINE__)
#define CHECK_TEXT(text, part) check_text((text), (part), __FILE__, __LINE__)

static inline int check_that(int holds, const char* what, const char* file, int line) {
  if (!holds) {
    ++check_failures;
    fprintf(stderr, "[rank %d] %s:%d: not so: %s\n", world_rank, file, line, what);
  }
  return holds;
}

static inline int check_ints(long long got, long long want, const char* what, const char* file, int line) {
  if (got != want) {
    ++check_failures;
    fprintf(stderr, "[rank %d] %s:%d: %s is %lld instead of %lld\n", world_rank, file, line, what, got, want);
  }
  return got == want;
}

static inline int check_text(const char* text, const char* part, const char* file, int line) {
  const int holds = strstr(text, part) != NULL;
  if (!holds) {
    ++check_failures;
    fprintf(stderr, "[rank %d] %s:%d: \"%s\" is not in: %s\n", world_rank, file, line, part, text);
  }
  return holds;
}

// With errors returned, so that an unexpected one is named by a check.
static inline void check_begin(int* argc, char*** argv) {
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
}

// The exit status, the same on all ranks.
static inline int check_end(void) {
  int failures = check_failures;
  MPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (world_rank == 0) printf("%s\n", failures == 0 ? "all checks hold" : "SOME CHECKS FAILED");
  MPI_Finalize();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Sets options from pairs of key and value, up to a null; returns what Terse_Comm_set_info does.
static inline int set_options(MPI_Comm comm, const char* const pairs[]) {
  MPI_Info info;
  MPI_Info_create(&info);
  for (int i = 0; pairs[i] != NULL; i += 2) MPI_Info_set(info, pairs[i], pairs[i + 1]);
  const int code = Terse_Comm_set_info(comm, info);
  MPI_Info_free(&info);
  return code;
}

// Always compresses.
static inline int set_onebit(MPI_Comm comm) {
  const char* const pairs[] = {
      "terse_codec", "onebit:block=64", "terse_algorithm", "two_phase", "terse_min_bytes", "0", NULL};
  return set_options(comm, pairs);
}

#endif
