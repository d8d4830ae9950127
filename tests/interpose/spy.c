// SPDX-License-Identifier: Apache-2.0
//
// Stands before the MPI library and looks at what Terse's two libraries ask of it: whether they communicate
// on a communicator of the program's. To make one of their own of it, by MPI_Comm_create, is all that they
// may do. Where SPY_REFUSES names a function, it fails once for them, on the communicator of the name
// "refused".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int on_own;
static atomic_int on_others;
static atomic_int gathers;

static void* real(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  if (found == NULL) abort();
  return found;
}

static int is_terse(const void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && strstr(info.dli_fname, "libterse") != NULL;
}

static void look(const char* what, MPI_Comm comm, const void* caller) {
  char name[MPI_MAX_OBJECT_NAME] = {0};
  int length = 0;
  if (!is_terse(caller)) return;
  PMPI_Comm_get_name(comm, name, &length);
  if (strncmp(name, "Terse: ", 7) == 0) {
    ++on_own;
  } else {
    ++on_others;
    fprintf(stderr, "spy: %s on the program's communicator '%s'\n", what, name);
  }
}

static int refuses(const char* what, MPI_Comm comm, const void* caller) {
  static atomic_int done;
  char name[MPI_MAX_OBJECT_NAME] = {0};
  int length = 0;
  const char* asked = getenv("SPY_REFUSES");
  if (asked == NULL || strcmp(asked, what) != 0 || !is_terse(caller)) return 0;
  PMPI_Comm_get_name(comm, name, &length);
  if (strcmp(name, "refused") != 0 || done++ != 0) return 0;
  PMPI_Comm_call_errhandler(comm, MPI_ERR_COMM);
  return 1;
}

#define LOOK(function) look(#function, comm, __builtin_return_address(0))
#define CALL(function, ...) ((__typeof__(&function))real(#function))(__VA_ARGS__)

int PMPI_Allreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                   MPI_Comm comm) {
  LOOK(PMPI_Allreduce);
  return CALL(PMPI_Allreduce, sendbuf, recvbuf, count, datatype, op, comm);
}

int PMPI_Gather(const void* sendbuf, int sendcount, MPI_Datatype sendtype, void* recvbuf, int recvcount,
                MPI_Datatype recvtype, int root, MPI_Comm comm) {
  LOOK(PMPI_Gather);
  if (is_terse(__builtin_return_address(0))) ++gathers;
  return CALL(PMPI_Gather, sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, root, comm);
}

int PMPI_Gatherv(const void* sendbuf, int sendcount, MPI_Datatype sendtype, void* recvbuf,
                 const int recvcounts[], const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm) {
  LOOK(PMPI_Gatherv);
  if (is_terse(__builtin_return_address(0))) ++gathers;
  return CALL(PMPI_Gatherv, sendbuf, sendcount, sendtype, recvbuf, recvcounts, displs, recvtype, root, comm);
}

int PMPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm* made) {
  LOOK(PMPI_Comm_split_type);
  return CALL(PMPI_Comm_split_type, comm, type, key, info, made);
}

int PMPI_Comm_get_attr(MPI_Comm comm, int key, void* value, int* found) {
  if (refuses("PMPI_Comm_get_attr", comm, __builtin_return_address(0))) return MPI_ERR_COMM;
  return CALL(PMPI_Comm_get_attr, comm, key, value, found);
}

int PMPI_Comm_create(MPI_Comm comm, MPI_Group group, MPI_Comm* made) {
  if (refuses("PMPI_Comm_create", comm, __builtin_return_address(0))) return MPI_ERR_COMM;
  return CALL(PMPI_Comm_create, comm, group, made);
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* made) {
  LOOK(MPI_Comm_dup);
  return CALL(MPI_Comm_dup, comm, made);
}

int MPI_Isend(const void* buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
              MPI_Request* request) {
  LOOK(MPI_Isend);
  return CALL(MPI_Isend, buf, count, datatype, dest, tag, comm, request);
}

int MPI_Irecv(void* buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm,
              MPI_Request* request) {
  LOOK(MPI_Irecv);
  return CALL(MPI_Irecv, buf, count, datatype, source, tag, comm, request);
}

int MPI_Iallreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                   MPI_Comm comm, MPI_Request* request) {
  LOOK(MPI_Iallreduce);
  return CALL(MPI_Iallreduce, sendbuf, recvbuf, count, datatype, op, comm, request);
}

int MPI_Finalize(void) {
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0) {
    printf("spy: %s on Terse's own communicators, %d calls on the program's, %d gathers\n",
           on_own > 0 ? "calls" : "no call", (int)on_others, (int)gathers);
  }
  fflush(stdout);
  if (on_others > 0) PMPI_Abort(MPI_COMM_WORLD, 3);
  return CALL(MPI_Finalize);
}
