// SPDX-License-Identifier: Apache-2.0
// ranks: 2
//
// Ten thousand communicators, made, used and freed: as much memory at the end as with MPI alone.
#include "check.h"

#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
#include <malloc.h>
#define TERSE_LIVE_BYTES 1
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

// Under a sanitizer, which sees at once what is used after it was freed, fewer: memory is not compared there.
enum { kCount = 1024, kTenth = SANITIZED ? 100 : 1000, kCommunicators = 10 * kTenth, kWarmUp = kTenth };

// Bytes that malloc has given and not got back; 0 where it does not tell.
static long live_bytes(void) {
#ifdef TERSE_LIVE_BYTES
  const struct mallinfo2 info = mallinfo2();
  return (long)(info.uordblks + info.hblkhd);
#else
  return 0;
#endif
}

static long resident_kib(void) {
  long kib = 0;
  char line[256];
  FILE* status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, "VmRSS:", 6) == 0) kib = strtol(line + 6, NULL, 10);
  }
  if (status != NULL) fclose(status);
  return kib;
}

static float data[kCount];

static void use_terse(MPI_Comm parent) {
  MPI_Comm comm;
  MPI_Comm_dup(parent, &comm);  // with the parent's options
  CHECK_INT(Terse_Allreduce(MPI_IN_PLACE, data, kCount, MPI_FLOAT, Terse_Op_average(), comm), MPI_SUCCESS);
  MPI_Comm_free(&comm);
}

// With a second duplicate, as Terse has one inside.
static void use_mpi(MPI_Comm parent) {
  MPI_Comm comm, inner;
  MPI_Comm_dup(parent, &comm);
  MPI_Comm_dup(comm, &inner);
  MPI_Allreduce(MPI_IN_PLACE, data, kCount, MPI_FLOAT, MPI_MAX, inner);
  MPI_Comm_free(&inner);
  MPI_Comm_free(&comm);
}

typedef struct Growth {
  long live;
  long resident;
} Growth;

// What memory grows by after the warm-up.
static Growth repeat(void (*use)(MPI_Comm), MPI_Comm parent, const char* what) {
  Growth before = {0, 0}, after;
  double start = 0, first = 0, last = 0;
  for (int i = 0; i < kWarmUp + kCommunicators; ++i) {
    if (i == kWarmUp) {
      before.live = live_bytes();
      before.resident = resident_kib();
    }
    const int from_start = i - kWarmUp;
    if (from_start % kTenth == 0) start = MPI_Wtime();
    use(parent);
    if (from_start == kTenth - 1) first = MPI_Wtime() - start;
    if (from_start == kCommunicators - 1) last = MPI_Wtime() - start;
  }
  after.live = live_bytes() - before.live;
  after.resident = resident_kib() - before.resident;
  if (world_rank == 0) {
    printf(
        "%-5s %d communicators: the first tenth in %.3f s, the last in %.3f s; memory grew by %ld bytes, "
        "resident by %ld KiB\n",
        what, kCommunicators, first, last, after.live, after.resident);
    fflush(stdout);
  }
  return after;
}

int main(int argc, char** argv) {
  check_begin(&argc, &argv);
  MPI_Comm parent, plain;
  MPI_Comm_dup(MPI_COMM_WORLD, &parent);
  MPI_Comm_dup(MPI_COMM_WORLD, &plain);
  CHECK_INT(set_onebit(parent), MPI_SUCCESS);
  for (int i = 0; i < kCount; ++i) data[i] = 2.0f;
  const Growth mpi = repeat(use_mpi, plain, "MPI");
  const Growth terse = repeat(use_terse, parent, "Terse");
  for (int i = 0; i < kCount; ++i) CHECK(data[i] == 2.0f);
#if SANITIZED
  (void)mpi, (void)terse;  // what is freed stays in the sanitizer's hands for a while
#else
  // less than a word for each communicator
  CHECK(terse.live - mpi.live < 8L * kCommunicators);
  CHECK(terse.resident - mpi.resident < 1024);
#endif
  MPI_Comm_free(&plain);
  MPI_Comm_free(&parent);
  return check_end();
}
