// SPDX-License-Identifier: Apache-2.0
//
// The same for Fortran, by each name that a compiler or a module gives a function. Open MPI's do not pass
// through those for C. MPICH's do, but for the beginning and the end of MPI in the module mpi_f08.
#include <mpi.h>

#include "interpose/chain.hpp"
#include "interpose/drop_in.hpp"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wreserved-identifier"  // compilers end names in two underscores
#endif

namespace {

void leave(MPI_Fint* code, int made) {
  if (code != nullptr) *code = made;  // null where Fortran lets it be left out
}

}  // namespace

// Through the C functions of this library, as MPI libraries do it themselves. Not through the Fortran
// functions behind these: where a program has loaded its Fortran parts late (a Python module), there are none
// in sight.
#define TERSE_FORTRAN_SPAN(init_name, init_thread_name, finalize_name)                                    \
  extern "C" [[gnu::visibility("default")]] void init_name(MPI_Fint* code) {                              \
    leave(code, MPI_Init(nullptr, nullptr));                                                              \
  }                                                                                                       \
  extern "C" [[gnu::visibility("default")]] void init_thread_name(MPI_Fint* required, MPI_Fint* provided, \
                                                                  MPI_Fint* code) {                       \
    leave(code, MPI_Init_thread(nullptr, nullptr, *required, provided));                                  \
  }                                                                                                       \
  extern "C" [[gnu::visibility("default")]] void finalize_name(MPI_Fint* code) {                          \
    leave(code, MPI_Finalize());                                                                          \
  }

TERSE_FORTRAN_SPAN(mpi_init_f08_, mpi_init_thread_f08_, mpi_finalize_f08_)  // use mpi_f08

#ifdef OPEN_MPI

TERSE_FORTRAN_SPAN(mpi_init_, mpi_init_thread_, mpi_finalize_)
TERSE_FORTRAN_SPAN(mpi_init__, mpi_init_thread__, mpi_finalize__)

// Where MPI_IN_PLACE and MPI_BOTTOM lie for Fortran.
extern "C" [[gnu::weak]] int mpi_fortran_in_place_;
extern "C" [[gnu::weak]] int mpi_fortran_bottom_;

namespace {

void* address(const void* buffer) {
  return buffer == &mpi_fortran_bottom_ ? MPI_BOTTOM : const_cast<void*>(buffer);
}

}  // namespace

#define TERSE_FORTRAN_ALLREDUCE(name)                                                                       \
  extern "C" [[gnu::visibility("default")]] void name(const void* sendbuf, void* recvbuf, MPI_Fint* count,  \
                                                      MPI_Fint* datatype, MPI_Fint* op, MPI_Fint* comm,     \
                                                      MPI_Fint* code) {                                     \
    leave(code,                                                                                             \
          terse::interpose::allreduce({sendbuf == &mpi_fortran_in_place_ ? MPI_IN_PLACE : address(sendbuf), \
                                       address(recvbuf), *count, MPI_Type_f2c(*datatype), MPI_Op_f2c(*op),  \
                                       MPI_Comm_f2c(*comm), __builtin_return_address(0)}));                 \
  }

TERSE_FORTRAN_ALLREDUCE(mpi_allreduce_)
TERSE_FORTRAN_ALLREDUCE(mpi_allreduce__)
TERSE_FORTRAN_ALLREDUCE(mpi_allreduce_f08_)

#endif
