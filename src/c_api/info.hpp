// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <exception>
#include <terse/communicator.hpp>
#include <terse/error.hpp>
#include <utility>

namespace terse::c_api {

/// Sets the options that have a key. What is wrong with one, which it names, becomes `options.failure`.
/// Returns what check() has thrown, null if nothing: `options.failure` is for the other ranks then.
[[nodiscard]] std::exception_ptr read_info(MPI_Info info, AllreduceOptions& options);

/// Makes a collective call that tells `options.failure` to the other ranks. The error here is what read_info
/// has returned, if anything, since MPI has called the error handler for that.
template <class F>
void telling_others(const std::exception_ptr& found_by_mpi, F&& call) {
  try {
    std::forward<F>(call)();
  } catch (const Error&) {
    if (found_by_mpi) std::rethrow_exception(found_by_mpi);
    throw;
  }
}

}  // namespace terse::c_api
