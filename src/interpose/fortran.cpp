// SPDX-License-Identifier: Apache-2.0
//
// The same for Fortran, by each name that a compiler or a module gives a function. Open MPI's do not pass
// through those for C. MPICH's do, but for the beginning and the end of MPI in the module mpi_f08.
#include <mpi.h>

#include "interpose/chain.hpp"
#include "interpose/drop_in.hpp"

using terse::interpose::DropIn;
using terse::interpose::next_in_line;

namespace {

using Init = void(MPI_Fint*);
using InitThread = void(MPI_Fint*, MPI_Fint*, MPI_Fint*);

bool succeeded(const MPI_Fint* code, bool otherwise) {
  return code != nullptr ? *code == MPI_SUCCESS : otherwise;
}

template <class F>
F* next_of(const char* name) {
  return reinterpret_cast<F*>(next_in_line(name));
}

}  // namespace

#define TERSE_FORTRAN_SPAN(init_name, init_thread_name, finalize_name)                                    \
  extern "C" [[gnu::visibility("default")]] void init_name(MPI_Fint* code) {                              \
    static Init* const next = next_of<Init>(#init_name);                                                  \
    next(code);                                                                                           \
    if (succeeded(code, true)) DropIn::start();                                                           \
  }                                                                                                       \
  extern "C" [[gnu::visibility("default")]] void init_thread_name(MPI_Fint* required, MPI_Fint* provided, \
                                                                  MPI_Fint* code) {                       \
    static InitThread* const next = next_of<InitThread>(#init_thread_name);                               \
    next(required, provided, code);                                                                       \
    if (succeeded(code, true)) DropIn::start();                                                           \
  }                                                                                                       \
  extern "C" [[gnu::visibility("default")]] void finalize_name(MPI_Fint* code) {                          \
    static Init* const next = next_of<Init>(#finalize_name);                                              \
    DropIn::finish();                                                                                     \
    next(code);                                                                                           \
  }

TERSE_FORTRAN_SPAN(mpi_init_f08_, mpi_init_thread_f08_, mpi_finalize_f08_)  // use mpi_f08

#ifdef OPEN_MPI

TERSE_FORTRAN_SPAN(mpi_init, mpi_init_thread, mpi_finalize)
TERSE_FORTRAN_SPAN(mpi_init_, mpi_init_thread_, mpi_finalize_)
TERSE_FORTRAN_SPAN(mpi_init__, mpi_init_thread__, mpi_finalize__)
TERSE_FORTRAN_SPAN(MPI_INIT, MPI_INIT_THREAD, MPI_FINALIZE)

// Where MPI_IN_PLACE lies for Fortran. The program has it, if it knows the name, or else the MPI library.
extern "C" [[gnu::weak]] int mpi_fortran_in_place_;

namespace {

using Allreduce = void(const void*, void*, MPI_Fint*, MPI_Fint*, MPI_Fint*, MPI_Fint*, MPI_Fint*);

// `code` may be null where Fortran lets it be left out.
void allreduce(Allreduce* next, const void* site, const void* sendbuf, void* recvbuf, MPI_Fint* count,
               MPI_Fint* datatype, MPI_Fint* op, MPI_Fint* comm, MPI_Fint* code) {
  if (DropIn* drop_in = DropIn::active()) {
    const MPI_Datatype type = MPI_Type_f2c(*datatype);
    const MPI_Op operation = MPI_Op_f2c(*op);
    if (drop_in->concerns(*count, type, operation)) {
      const void* from = sendbuf == &mpi_fortran_in_place_ ? MPI_IN_PLACE : sendbuf;
      const auto done =
          drop_in->allreduce({from, recvbuf, *count, type, operation, MPI_Comm_f2c(*comm), site});
      if (done) {
        if (code != nullptr) *code = *done;
        return;
      }
    } else {
      drop_in->count_passed_on();
    }
  }
  next(sendbuf, recvbuf, count, datatype, op, comm, code);
}

}  // namespace

#define TERSE_FORTRAN_ALLREDUCE(name)                                                                      \
  extern "C" [[gnu::visibility("default")]] void name(const void* sendbuf, void* recvbuf, MPI_Fint* count, \
                                                      MPI_Fint* datatype, MPI_Fint* op, MPI_Fint* comm,    \
                                                      MPI_Fint* code) {                                    \
    static Allreduce* const next = next_of<Allreduce>(#name);                                              \
    allreduce(next, __builtin_return_address(0), sendbuf, recvbuf, count, datatype, op, comm, code);       \
  }

TERSE_FORTRAN_ALLREDUCE(mpi_allreduce)
TERSE_FORTRAN_ALLREDUCE(mpi_allreduce_)
TERSE_FORTRAN_ALLREDUCE(mpi_allreduce__)
TERSE_FORTRAN_ALLREDUCE(MPI_ALLREDUCE)
TERSE_FORTRAN_ALLREDUCE(mpi_allreduce_f08_)

#endif
