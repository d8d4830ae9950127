// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <exception>
#include <optional>
#include <string>
#include <terse/error.hpp>
#include <utility>

#include "c_api/handles.hpp"

namespace terse::c_api {

/// Whether an error ends the program: MPI's default. Errors: those of check(), for what is no communicator.
bool errors_are_fatal(MPI_Comm comm);

/// How the work of a call has failed.
struct Failure {
  std::optional<ErrorCode> kind{};  ///< of an error of Terse's, which nobody has been told of
  std::string sentence{};           ///< of that; empty where there was no memory for it
  int code = MPI_SUCCESS;           ///< of an error that MPI has called the handler for
  std::exception_ptr thrown{};      ///< by the program's handler, when MPI called it
};

/// In a catch block: what is being handled. Throws on what neither Terse nor its use of memory throws: out of
/// the C++ interface, that can only come from a handler of the program, which MPI has called there.
Failure current_failure(const char* where);

/// Remembers the sentence of an error of Terse's for this thread, then calls the error handler of `comm`;
/// MPI_COMM_NULL: as MPI does for calls without a communicator. Returns the code. Outside of catch blocks, so
/// that the handler finds no exception that is being handled. Errors: what a handler throws.
int report(Failure failure, MPI_Comm comm);

/// Runs a call's work; what it throws becomes the error code that is returned. What passes is what an error
/// handler of the program throws, and by then the call is over.
template <class F>
int run(const char* where, MPI_Comm comm, F&& work) {
  Failure failure;
  try {
    return std::forward<F>(work)();
  } catch (...) {
    failure = current_failure(where);
  }
  return report(std::move(failure), comm);
}

}  // namespace terse::c_api
