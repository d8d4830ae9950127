// SPDX-License-Identifier: Apache-2.0
//
// A program that knows MPI and nothing else, in scenes: what the drop-in makes of them is checked here by the
// results, and by who runs it from the report.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fenv.h>
#include <math.h>
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank = 0;
static int ranks = 1;
static int failures = 0;

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition) && ++failures < 10) {                                            \
      fprintf(stderr, "[rank %d] line %d: not so: %s\n", rank, __LINE__, #condition); \
    }                                                                                 \
  } while (0)

static void* allocate(size_t bytes) {
  void* memory = malloc(bytes == 0 ? 1 : bytes);
  if (memory == NULL) abort();
  return memory;
}

static float* constant(int count, float value) {
  float* x = allocate((size_t)count * sizeof *x);
  for (int i = 0; i < count; ++i) x[i] = value;
  return x;
}

static void check_all(const float* x, int count, float value) {
  int wrong = 0;
  for (int i = 0; i < count; ++i) wrong += x[i] != value;
  CHECK(wrong == 0);
}

// A tensor whose elements are alike is what onebit represents exactly: so is the sum.
static void sum_constant(float* x, int count, MPI_Comm comm) {
  int of_comm = 1;
  int me = 0;
  MPI_Comm_size(comm, &of_comm);
  MPI_Comm_rank(comm, &me);
  for (int i = 0; i < count; ++i) x[i] = (float)(me + 1);
  CHECK(MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, comm) == MPI_SUCCESS);
  check_all(x, count, (float)(of_comm * (of_comm + 1)) / 2);
}

static double uniform(unsigned* state) {
  *state = *state * 1664525u + 1013904223u;
  return (double)(*state >> 8) / (1 << 24);
}

static float gaussian(unsigned* state) {
  return (float)(sqrt(-2 * log(1 - uniform(state))) * cos(6.283185307179586 * uniform(state)));
}

// --- scenes ---

// Sizes, both types, in place and not, again and again.
static void constants(void) {
  const int counts[] = {1, 2, 511, 512, 513, 4096, 100003};
  for (int round = 0; round < 3; ++round) {
    for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
      const int count = counts[c];
      float* x = constant(count, (float)(rank + 1));
      float* sum = constant(count, -1);
      CHECK(MPI_Allreduce(x, sum, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS);
      check_all(sum, count, (float)(ranks * (ranks + 1)) / 2);
      check_all(x, count, (float)(rank + 1));
      sum_constant(x, count, MPI_COMM_WORLD);
      double* y = allocate((size_t)count * sizeof *y);
      for (int i = 0; i < count; ++i) y[i] = rank + 1;
      CHECK(MPI_Allreduce(MPI_IN_PLACE, y, count, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS);
      for (int i = 0; i < count; ++i) CHECK(y[i] == ranks * (ranks + 1) / 2.0);
      free(x);
      free(sum);
      free(y);
    }
  }
}

// 40 sums of one tensor. Compressed, each is far off and their mean is near; exact, there is no difference.
static void gaussians(int lossy) {
  enum { kCount = 20000, kCalls = 40 };
  float* x = allocate(kCount * sizeof *x);
  float* want = allocate(kCount * sizeof *want);
  float* got = allocate(kCount * sizeof *got);
  double* mean = calloc(kCount, sizeof *mean);
  unsigned state = (unsigned)rank + 1;
  for (int i = 0; i < kCount; ++i) x[i] = gaussian(&state);
  PMPI_Allreduce(x, want, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  int different = 0;
  for (int k = 0; k < kCalls; ++k) {
    CHECK(MPI_Allreduce(x, got, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS);
    for (int i = 0; i < kCount; ++i) {
      different += got[i] != want[i];
      mean[i] += (double)got[i] / kCalls;
    }
  }
  double off = 0;
  double norm = 0;
  for (int i = 0; i < kCount; ++i) {
    off += (mean[i] - want[i]) * (mean[i] - want[i]);
    norm += (double)want[i] * want[i];
  }
  if (lossy) {
    CHECK(different > kCount);
    CHECK(sqrt(off / norm) < 0.3);
  } else {
    CHECK(different == 0);
  }
  free(x);
  free(want);
  free(got);
  free(mean);
}

static void take_larger(void* in, void* inout, int* count, MPI_Datatype* type) {
  (void)type;
  for (int i = 0; i < *count; ++i) {
    if (((float*)in)[i] > ((float*)inout)[i]) ((float*)inout)[i] = ((float*)in)[i];
  }
}

// What is not Terse's: the same as without it.
static void others(void) {
  enum { kCount = 5000 };
  float* x = allocate(kCount * sizeof *x);
  float* got = allocate(kCount * sizeof *got);
  float* want = allocate(kCount * sizeof *want);
  int* n = allocate(kCount * sizeof *n);
  unsigned state = (unsigned)rank + 1;
  for (int i = 0; i < kCount; ++i) {
    x[i] = gaussian(&state);
    n[i] = rank + i;
  }
  MPI_Op larger;
  MPI_Op_create(take_larger, 1, &larger);
  const MPI_Op ops[] = {MPI_MAX, MPI_MIN, MPI_PROD, larger};
  for (int k = 0; k < 4; ++k) {
    PMPI_Allreduce(x, want, kCount, MPI_FLOAT, ops[k], MPI_COMM_WORLD);
    MPI_Allreduce(x, got, kCount, MPI_FLOAT, ops[k], MPI_COMM_WORLD);
    CHECK(memcmp(got, want, kCount * sizeof *got) == 0);
  }
  MPI_Allreduce(MPI_IN_PLACE, n, kCount, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  for (int i = 0; i < kCount; ++i) CHECK(n[i] == ranks * i + ranks * (ranks - 1) / 2);

  MPI_Datatype pair;
  MPI_Type_contiguous(2, MPI_FLOAT, &pair);
  MPI_Type_commit(&pair);
  MPI_Op larger_pairs;
  MPI_Op_create(take_larger, 1, &larger_pairs);
  MPI_Allreduce(x, got, kCount / 2, pair, larger_pairs, MPI_COMM_WORLD);

  MPI_Allreduce(x, got, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_SELF);
  CHECK(memcmp(got, x, kCount * sizeof *got) == 0);
  float small[2] = {1.25f, (float)rank};
  MPI_Allreduce(MPI_IN_PLACE, small, 2, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  CHECK(small[0] == 1.25f * (float)ranks);
  CHECK(MPI_Allreduce(x, got, 0, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) == MPI_SUCCESS);

  if (ranks > 1) {
    MPI_Comm half;
    MPI_Comm inter;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - rank % 2, 7, &inter);
    float* y = constant(kCount, 3);
    MPI_Allreduce(y, got, kCount, MPI_FLOAT, MPI_SUM, inter);
    int there = 0;
    MPI_Comm_remote_size(inter, &there);
    check_all(got, kCount, 3.0f * (float)there);
    free(y);
    MPI_Comm_free(&inter);
    MPI_Comm_free(&half);
  }
  MPI_Op_free(&larger_pairs);
  MPI_Op_free(&larger);
  MPI_Type_free(&pair);
  free(x);
  free(got);
  free(want);
  free(n);
}

// Made, used and freed, in two kinds; some are never used, and the last ones never freed.
static void communicators(void) {
  float* x = constant(2000, 0);
  for (int k = 0; k < 100; ++k) {
    MPI_Comm twin;
    MPI_Comm part;
    MPI_Comm_dup(MPI_COMM_WORLD, &twin);
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, -rank, &part);
    sum_constant(x, 2000, part);
    sum_constant(x, 2000, twin);
    sum_constant(x, 2000, part);
    if (k == 99) break;
    MPI_Comm_free(&twin);
    if (k % 2 == 0) MPI_Comm_free(&part);
    if (k % 2 == 1) MPI_Comm_disconnect(&part);
  }
  free(x);
}

static void* work(void* comm) {
  float* x = constant(3000, 0);
  for (int k = 0; k < 20; ++k) sum_constant(x, 3000, *(MPI_Comm*)comm);
  free(x);
  return NULL;
}

static void threads(void) {
  enum { kThreads = 4 };
  MPI_Comm comms[kThreads];
  pthread_t started[kThreads];
  for (int t = 0; t < kThreads; ++t) MPI_Comm_dup(MPI_COMM_WORLD, &comms[t]);
  for (int t = 0; t < kThreads; ++t) pthread_create(&started[t], NULL, work, &comms[t]);
  for (int t = 0; t < kThreads; ++t) pthread_join(started[t], NULL);
  for (int t = 0; t < kThreads; ++t) MPI_Comm_free(&comms[t]);
}

// Ten calls of one tensor, whose data rank 0 has now here, now there.
static void moving(void) {
  float* buffers[2] = {constant(4000, 0), constant(4000, 0)};
  for (int k = 0; k < 10; ++k) sum_constant(buffers[rank == 0 ? k % 2 : 0], 4000, MPI_COMM_WORLD);
  free(buffers[0]);
  free(buffers[1]);
}

// Two tensors in turn, whose places rank 0 keeps and the others exchange once: each has been summed as often
// as its counterpart, and only their order of birth tells them apart.
static void crossed(void) {
  float* buffers[2] = {constant(4000, 0), constant(4000, 0)};
  for (int k = 0; k < 10; ++k) {
    const int exchanged = rank != 0 && k >= 2;
    sum_constant(buffers[(k + exchanged) % 2], 4000, MPI_COMM_WORLD);
  }
  free(buffers[0]);
  free(buffers[1]);
}

// A tensor never lies where one lay before.
static void temporaries(void) {
  float* buffers[20];
  for (int k = 0; k < 20; ++k) {
    buffers[k] = constant(4000, 0);
    sum_constant(buffers[k], 4000, MPI_COMM_WORLD);
  }
  for (int k = 0; k < 20; ++k) free(buffers[k]);
}

// Four tensors in turn, five times, and one that is larger than a megabyte.
static void several(void) {
  float* buffers[4];
  for (int t = 0; t < 4; ++t) buffers[t] = constant(128 << 10, 0);
  float* large = constant(1 << 20, 0);
  for (int k = 0; k < 5; ++k) {
    for (int t = 0; t < 4; ++t) sum_constant(buffers[t], 128 << 10, MPI_COMM_WORLD);
    sum_constant(large, 1 << 20, MPI_COMM_WORLD);
  }
  for (int t = 0; t < 4; ++t) free(buffers[t]);
  free(large);
}

// Twenty calls of one tensor.
static void one(void) {
  float* x = constant(4000, 0);
  for (int k = 0; k < 20; ++k) sum_constant(x, 4000, MPI_COMM_WORLD);
  free(x);
}

// One communicator has a name on all ranks, one only on rank 0.
static void names(void) {
  MPI_Comm comms[2];
  float* x = constant(4000, 0);
  for (int c = 0; c < 2; ++c) {
    MPI_Comm_dup(MPI_COMM_WORLD, &comms[c]);
    if (c == 0 || rank == 0) MPI_Comm_set_name(comms[c], "train");
    for (int k = 0; k < 3; ++k) sum_constant(x, 4000, comms[c]);
  }
  for (int c = 0; c < 2; ++c) MPI_Comm_free(&comms[c]);
  free(x);
}

static void not_a_number(void) {
  enum { kCount = 10000 };
  float* x = allocate(kCount * sizeof *x);
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < kCount; ++i) x[i] = (float)(rank + 1);
    if (k == 1 && rank == ranks - 1) x[kCount / 2] = NAN;
    MPI_Allreduce(MPI_IN_PLACE, x, kCount, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < kCount; ++i) {
      if (k == 1 && i == kCount / 2) {
        CHECK(isnan(x[i]));
      } else {
        CHECK(x[i] == (float)(ranks * (ranks + 1)) / 2);
      }
    }
  }
  free(x);
}

// What MPI refuses, it goes on to refuse.
static void errors(void) {
  float* x = constant(4000, 0);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  CHECK(MPI_Allreduce(MPI_IN_PLACE, x, -1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) != MPI_SUCCESS);
  CHECK(MPI_Allreduce(MPI_IN_PLACE, x, 4000, MPI_FLOAT, MPI_SUM, MPI_COMM_NULL) != MPI_SUCCESS);
  CHECK(MPI_Allreduce(MPI_IN_PLACE, x, 4000, MPI_DATATYPE_NULL, MPI_SUM, MPI_COMM_WORLD) != MPI_SUCCESS);
  sum_constant(x, 4000, MPI_COMM_WORLD);
  free(x);
}

// Ranks that sum different numbers of elements hear of it, all of them.
static void mismatch(void) {
  float* x = constant(8000, 0);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  sum_constant(x, 4000, MPI_COMM_WORLD);
  for (int k = 0; k < 2; ++k) {
    const int count = rank == 0 ? 4000 : 8000;
    sum_constant(x, 4000, MPI_COMM_WORLD);
    CHECK(MPI_Allreduce(MPI_IN_PLACE, x, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD) != MPI_SUCCESS);
    sum_constant(x, k == 0 ? 4000 : 8000, MPI_COMM_WORLD);
  }
  sum_constant(x, 8000, MPI_COMM_WORLD);
  free(x);
}

static const char* own_path = "";
static const char* part_path = "";

// A library of Fortran's that nobody knew of at the beginning.
static void late(void) {
  void* library = dlopen(part_path, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  if (library == NULL) return;
  int (*part)(void);
  *(void**)&part = dlsym(library, "fortran_part");
  for (int k = 0; k < 3; ++k) CHECK(part() == 1);
}

// Processes of two MPI_COMM_WORLDs, which may or may not have the drop-in, in one communicator.
static void sum_with(MPI_Comm others, int high) {
  MPI_Comm all;
  MPI_Intercomm_merge(others, high, &all);
  float* x = constant(40000, 0);
  sum_constant(x, 40000, all);
  free(x);
  MPI_Comm_free(&all);
  MPI_Comm_disconnect(&others);
}

static void spawned(void) {
  MPI_Comm children;
  char word[] = "child";
  char* arguments[] = {word, NULL};
  MPI_Comm_spawn(own_path, arguments, 1, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &children, MPI_ERRCODES_IGNORE);
  sum_with(children, 0);
}

static void child(void) {
  MPI_Comm parents;
  MPI_Comm_get_parent(&parents);
  sum_with(parents, 1);
}

// Rank 0 has its second tensor on what its driver calls a device.
static void device(void) {
  void* driver = dlopen(part_path, RTLD_NOW | RTLD_LOCAL);
  CHECK(driver != NULL);
  if (driver == NULL) return;
  void (*claim)(const void*, size_t);
  *(void**)&claim = dlsym(driver, "fake_cuda_claim");
  float* buffers[2] = {constant(40000, 0), constant(40000, 0)};
  if (rank == 0) claim(buffers[1], 40000 * sizeof(float));
  for (int k = 0; k < 6; ++k) sum_constant(buffers[k % 2], 40000, MPI_COMM_WORLD);
  free(buffers[0]);
  free(buffers[1]);
}

// A gather that fails on its root leaves the other ranks' messages behind. Nothing that comes after it, up to
// MPI_Finalize, may take them for its own.
static void left(void) {
  int mine[10] = {0};
  int* all = allocate((size_t)ranks * 10 * sizeof *all);
  one();
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  const int code = MPI_Gather(mine, rank == 0 ? 1 : 10, MPI_INT, all, 1, MPI_INT, 0, MPI_COMM_WORLD);
  CHECK(rank != 0 || code != MPI_SUCCESS);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
  one();
  free(all);
}

static int class_of(int code) {
  int class = MPI_SUCCESS;
  if (code != MPI_SUCCESS) MPI_Error_class(code, &class);
  return class;
}

// The buffers of a sum are made twice, once for MPI and once for whatever stands before it: both say the
// same, and where they sum, it is the same.
static void compare(int count, int send_from, int receive_at, int comparable) {
  const size_t bytes = 2 * (size_t)count * sizeof(float);
  float* want = constant(2 * count, (float)(rank + 1));
  float* got = constant(2 * count, (float)(rank + 1));
  const float* const send_want = send_from < 0 ? NULL : want + send_from;
  const float* const send_got = send_from < 0 ? NULL : got + send_from;
  float* const receive_want = receive_at < 0 ? NULL : want + receive_at;
  float* const receive_got = receive_at < 0 ? NULL : got + receive_at;
  const int right = PMPI_Allreduce(send_want, receive_want, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  const int code = MPI_Allreduce(send_got, receive_got, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  CHECK(class_of(code) == class_of(right));
  if (comparable) CHECK(memcmp(want, got, bytes) == 0);
  free(want);
  free(got);
}

// One buffer as both, or two side by side: what MPI makes of it, whatever the size, again and again.
static void aliases(void) {
  const int counts[] = {16, 4000, 100003};
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  float* x = constant(4000, 0);
  for (int round = 0; round < 2; ++round) {
    for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
      compare(counts[c], 0, 0, 1);
      compare(counts[c], 0, counts[c], 1);
      sum_constant(x, 4000, MPI_COMM_WORLD);
    }
  }
  free(x);
}

// Buffers that overlap in part, for an MPI library that survives it. What it sums then depends on the moment.
static void overlaps(void) {
  const int counts[] = {16, 4000, 100003};
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  float* x = constant(4000, 0);
  for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
    compare(counts[c], 0, 1, 0);
    compare(counts[c], counts[c] / 2, 0, 0);
    sum_constant(x, 4000, MPI_COMM_WORLD);
  }
  free(x);
}

// Null where there is something to send, for an MPI library that survives it.
static void no_buffers(void) {
  const int counts[] = {16, 4000, 100003};
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  float* x = constant(4000, 0);
  for (size_t c = 0; c < sizeof counts / sizeof *counts; ++c) {
    compare(counts[c], -1, 0, 1);
    compare(counts[c], 0, -1, 1);
    sum_constant(x, 4000, MPI_COMM_WORLD);
  }
  free(x);
}

// The program's floating-point mode: rounding upwards, and with traps. Sums of whole numbers need no
// rounding, so that plain MPI raises no flag: nobody else may, nor change the mode.
static void floating_point(void) {
  enum { kTraps = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INEXACT };
  float* x = constant(100003, 0);
  // MPI itself may compute as it likes when it is first used
  PMPI_Allreduce(MPI_IN_PLACE, x, 100003, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  for (int k = 0; k < 6; ++k) {
    for (int i = 0; i < 100003; ++i) x[i] = (float)(rank + 1);
    fesetround(FE_UPWARD);
    feclearexcept(FE_ALL_EXCEPT);
    if (k % 2 == 1) feenableexcept(kTraps);
    MPI_Allreduce(MPI_IN_PLACE, x, 100003, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    CHECK(fegetexcept() == (k % 2 == 1 ? kTraps : 0));
    CHECK(fetestexcept(FE_ALL_EXCEPT) == 0);
    CHECK(fegetround() == FE_UPWARD);
    fedisableexcept(FE_ALL_EXCEPT);
    fesetround(FE_TONEAREST);
    check_all(x, 100003, (float)(ranks * (ranks + 1)) / 2);
  }
  free(x);
}

static void nothing(void) {}

// What MPI refuses in the first call on a communicator (the spy sees to that) is this call's error: it is
// returned, the handler is called once, and the data is as it was. The next call is right.
static int handled = 0;
static void count_error(MPI_Comm* comm, int* code, ...) {
  (void)comm, (void)code;
  ++handled;
}
static void refused(void) {
  MPI_Comm comm;
  MPI_Errhandler handler;
  float* x = constant(4000, 7);
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  MPI_Comm_set_name(comm, "refused");
  MPI_Comm_create_errhandler(count_error, &handler);
  MPI_Comm_set_errhandler(comm, handler);
  CHECK(class_of(MPI_Allreduce(MPI_IN_PLACE, x, 4000, MPI_FLOAT, MPI_SUM, comm)) == MPI_ERR_COMM);
  CHECK(handled == 1);
  check_all(x, 4000, 7);
  for (int k = 0; k < 3; ++k) sum_constant(x, 4000, comm);
  CHECK(handled == 1);
  MPI_Errhandler_free(&handler);
  MPI_Comm_free(&comm);
  free(x);
}

// Attributes of a communicator are the program's: none is copied, though communicators are made behind its
// back.
static int copies = 0;
static int deletions = 0;
static int count_copy(MPI_Comm comm, int key, void* extra, void* value, void* copy, int* copied) {
  (void)comm, (void)key, (void)extra;
  ++copies;
  *(void**)copy = value;
  *copied = 1;
  return MPI_SUCCESS;
}
static int count_deletion(MPI_Comm comm, int key, void* value, void* extra) {
  (void)comm, (void)key, (void)value, (void)extra;
  ++deletions;
  return MPI_SUCCESS;
}
static void attributes(void) {
  int key = MPI_KEYVAL_INVALID;
  MPI_Comm comm;
  float* x = constant(4000, 0);
  MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &comm);
  MPI_Comm_create_keyval(count_copy, count_deletion, &key, NULL);
  MPI_Comm_set_attr(comm, key, x);
  for (int k = 0; k < 3; ++k) sum_constant(x, 4000, comm);
  MPI_Comm_free(&comm);
  MPI_Comm_free_keyval(&key);
  CHECK(copies == 0);
  CHECK(deletions == 1);
  free(x);
}

static void finish(void) {
  MPI_Finalize();
  if (rank == 0) printf("finished at exit\n");
}

int main(int argc, char** argv) {
  int provided = 0;
  own_path = argv[0];
  if (argc > 2) part_path = argv[2];
  const char* scene = argc > 1 ? argv[1] : "";
  if (strcmp(scene, "threads") == 0) {
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    CHECK(provided == MPI_THREAD_MULTIPLE);
  } else {
    MPI_Init(&argc, &argv);
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const struct {
    const char* name;
    void (*play)(void);
  } scenes[] = {{"constants", constants},
                {"others", others},
                {"communicators", communicators},
                {"threads", threads},
                {"moving", moving},
                {"crossed", crossed},
                {"temporaries", temporaries},
                {"several", several},
                {"one", one},
                {"names", names},
                {"errors", errors},
                {"not_a_number", not_a_number},
                {"mismatch", mismatch},
                {"spawned", spawned},
                {"child", child},
                {"late", late},
                {"device", device},
                {"left", left},
                {"aliases", aliases},
                {"overlaps", overlaps},
                {"no_buffers", no_buffers},
                {"floating_point", floating_point},
                {"attributes", attributes},
                {"nothing", nothing},
                {"refused", refused},
                {"at_exit", one}};
  int played = 0;
  for (size_t i = 0; i < sizeof scenes / sizeof *scenes; ++i) {
    if (strcmp(scene, scenes[i].name) == 0) {
      scenes[i].play();
      ++played;
    }
  }
  if (strcmp(scene, "lossy") == 0 || strcmp(scene, "exact") == 0) {
    gaussians(strcmp(scene, "lossy") == 0);
    ++played;
  }
  CHECK(played == 1);
  PMPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0) printf("%s\n", failures == 0 ? "all checks hold" : "SOME CHECKS FAILED");
  if (strcmp(scene, "at_exit") == 0) {
    atexit(finish);
  } else {
    MPI_Finalize();
  }
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
