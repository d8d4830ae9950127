// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <string>
#include <terse/error.hpp>
#include <utility>

#include "c_api/handles.hpp"

namespace terse::c_api {

/// Whether an error ends the program: MPI's default.
bool errors_are_fatal(MPI_Comm comm) noexcept;

/// In a catch block: what is being handled, as MPI has it. Remembers the sentence for this thread, calls the
/// error handler of `comm` and returns the code. MPI_COMM_NULL: as MPI does for calls without a communicator.
int raise(const char* where, MPI_Comm comm) noexcept;

/// Runs a call's work; what it throws becomes the error code that is returned. No exception passes.
template <class F>
int run(const char* where, MPI_Comm comm, F&& work) noexcept {
  try {
    return std::forward<F>(work)();
  } catch (const MpiFailure& failure) {
    return failure.code;
  } catch (...) {
    return raise(where, comm);
  }
}

}  // namespace terse::c_api
