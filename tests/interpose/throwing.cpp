// SPDX-License-Identifier: Apache-2.0
//
// Error handlers that throw, as C++ programs have them: whoever has called MPI_Allreduce catches what its
// handler has thrown, once, and the next call is right. Knows MPI and nothing else.
//   throwing [counts] [buffers] [mismatch] [threads]
// counts: a negative one, for an MPI library that looks at them. buffers: one as input and output, which Open
// MPI reports to MPI_COMM_WORLD's handler. mismatch: ranks sum different numbers of elements, which only
// Terse finds out.
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

// As of a library that has a type of its own for errors.
class Error : public std::runtime_error {
 public:
  explicit Error(int code) : std::runtime_error("MPI's code " + std::to_string(code)), code_(code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

thread_local int called = 0;

void throw_standard(MPI_Comm*, int* code, ...) {
  ++called;
  throw std::runtime_error("MPI's code " + std::to_string(*code));
}
void throw_number(MPI_Comm*, int* code, ...) {
  ++called;
  throw int{*code};
}
void throw_own(MPI_Comm*, int* code, ...) {
  ++called;
  throw Error(*code);
}
extern "C" void throw_in_c(MPI_Comm*, int* code, ...) {
  ++called;
  throw Error(*code);
}

constexpr int kCount = 40000;

struct Errors {
  bool counts = false;
  bool buffers = false;
  bool mismatch = false;
};

struct Rank {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0;
  int ranks = 1;
  int failures = 0;
  std::vector<float> in = std::vector<float>(2 * kCount);
  std::vector<float> out = std::vector<float>(2 * kCount);

  void check(bool holds, const char* what) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "[rank %d] not so: %s\n", rank, what);
  }

  void sum_rightly() {
    for (float& value : in) value = static_cast<float>(rank + 1);
    check(MPI_Allreduce(in.data(), out.data(), kCount, MPI_FLOAT, MPI_SUM, comm) == MPI_SUCCESS, "success");
    bool right = true;
    for (int i = 0; i < kCount; ++i) {
      right = right && out[static_cast<std::size_t>(i)] == static_cast<float>(ranks * (ranks + 1)) / 2;
    }
    check(right, "the call after an error is right");
  }

  template <class Thrown>
  void expect(const char* what, const void* sendbuf, int count) {
    called = 0;
    bool caught = false;
    try {
      MPI_Allreduce(sendbuf, out.data(), count, MPI_FLOAT, MPI_SUM, comm);
    } catch (const Thrown&) {
      caught = true;
    }
    check(caught, what);
    check(called == 1, "the handler is called once");
    sum_rightly();
  }

  template <class Thrown>
  void play(MPI_Comm_errhandler_function* function, const Errors& errors) {
    MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
    MPI_Comm_create_errhandler(function, &handler);
    MPI_Comm_set_errhandler(comm, handler);
    if (errors.buffers) MPI_Comm_set_errhandler(MPI_COMM_WORLD, handler);
    sum_rightly();
    if (errors.counts) expect<Thrown>("a negative count is caught", in.data(), -1);
    if (errors.buffers) {
      expect<Thrown>("one buffer as both is caught", out.data(), 16);
      expect<Thrown>("one large buffer as both is caught", out.data(), kCount);
    }
    if (errors.mismatch) {
      expect<Thrown>("different counts are caught", in.data(), rank == 0 ? kCount : 2 * kCount);
    }
    MPI_Errhandler_free(&handler);
  }

  void play_all(MPI_Comm of, const Errors& errors) {
    comm = of;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    for (int round = 0; round < 2; ++round) {
      play<std::runtime_error>(&throw_standard, errors);
      play<int>(&throw_number, errors);
      play<Error>(&throw_own, errors);
      play<Error>(&throw_in_c, errors);
    }
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_ARE_FATAL);
  }
};

}  // namespace

int main(int argc, char** argv) {
  Errors errors;
  bool threads = false;
  for (int i = 1; i < argc; ++i) {
    errors.counts = errors.counts || std::strcmp(argv[i], "counts") == 0;
    errors.buffers = errors.buffers || std::strcmp(argv[i], "buffers") == 0;
    errors.mismatch = errors.mismatch || std::strcmp(argv[i], "mismatch") == 0;
    threads = threads || std::strcmp(argv[i], "threads") == 0;
  }
  int provided = 0;
  MPI_Init_thread(&argc, &argv, threads ? MPI_THREAD_MULTIPLE : MPI_THREAD_SINGLE, &provided);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm comms[2];
  for (MPI_Comm& comm : comms) MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  Rank players[2];
  std::thread other;
  if (threads) other = std::thread([&] { players[1].play_all(comms[1], errors); });
  players[0].play_all(comms[0], errors);
  if (threads) other.join();
  for (MPI_Comm& comm : comms) MPI_Comm_free(&comm);
  int failures = players[0].failures + players[1].failures;
  PMPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  if (rank == 0) std::puts(failures == 0 ? "all checks hold" : "SOME CHECKS FAILED");
  MPI_Finalize();
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
