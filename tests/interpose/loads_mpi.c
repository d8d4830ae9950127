// SPDX-License-Identifier: Apache-2.0
//
// A program that is not linked with MPI and takes its functions from the library when it runs, as Julia and
// Python's ctypes do.
//   loads_mpi LIBRARY local|global|default
// local, global: dlopen with RTLD_LOCAL or RTLD_GLOBAL, and dlsym of what that gives; default: dlsym of
// whatever has the name first in the process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void* library = NULL;

static void* find(const char* name) {
  void* found = dlsym(library, name);
  if (found == NULL) {
    fprintf(stderr, "no %s: %s\n", name, dlerror());
    exit(EXIT_FAILURE);
  }
  return found;
}

#define CALL(function, ...) ((__typeof__(&function))find(#function))(__VA_ARGS__)
#ifdef OPEN_MPI  // whose handles are addresses of objects in the library
#undef MPI_COMM_WORLD
#undef MPI_FLOAT
#undef MPI_SUM
#define MPI_COMM_WORLD ((MPI_Comm)find("ompi_mpi_comm_world"))
#define MPI_FLOAT ((MPI_Datatype)find("ompi_mpi_float"))
#define MPI_SUM ((MPI_Op)find("ompi_mpi_op_sum"))
#endif

int main(int argc, char** argv) {
  enum { kCount = 100000 };
  static float in[kCount];
  static float out[kCount];
  int rank = 0;
  int ranks = 1;
  int wrong = 0;
  if (argc != 3) return EXIT_FAILURE;
  library = dlopen(argv[1], RTLD_NOW | (strcmp(argv[2], "local") == 0 ? RTLD_LOCAL : RTLD_GLOBAL));
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return EXIT_FAILURE;
  }
  if (strcmp(argv[2], "default") == 0) library = RTLD_DEFAULT;
  CALL(MPI_Init, NULL, NULL);
  CALL(MPI_Comm_rank, MPI_COMM_WORLD, &rank);
  CALL(MPI_Comm_size, MPI_COMM_WORLD, &ranks);
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < kCount; ++i) in[i] = (float)(rank + 1);
    CALL(MPI_Allreduce, in, out, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < kCount; ++i) wrong += out[i] != (float)(ranks * (ranks + 1)) / 2;
  }
  if (rank == 0) puts(wrong == 0 ? "all checks hold" : "SOME CHECKS FAILED");
  CALL(MPI_Finalize);
  return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
