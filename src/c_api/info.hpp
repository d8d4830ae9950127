// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>
#include <terse/terse.h>

#include <exception>
#include <terse/communicator.hpp>
#include <terse/error.hpp>
#include <utility>

namespace terse::c_api {

/// Sets the options that have a key: of a communicator, or of a call, for which keys of a communicator's are
/// ignored. What is wrong with one, which it names, becomes `options.failure`. Returns what check() has
/// thrown, null if nothing: `options.failure` is for the other ranks then.
[[nodiscard]] std::exception_ptr read_info(MPI_Info info, CommunicatorOptions& options);
[[nodiscard]] std::exception_ptr read_info(MPI_Info info, CallOptions& options);
/// The options of a call as C has them; null: none. Its residuals go to `feedback`; of a list, where that is
/// null, it may have none. What is wrong becomes `options.failure`, as above.
[[nodiscard]] std::exception_ptr read_options(const Terse_Options* given, CallOptions& options,
                                              Terse_Feedback* feedback);

/// Makes a collective call that tells `options.failure` to the other ranks. The error here is what read_info
/// has returned, if anything, since MPI has called the error handler for that.
template <class F>
auto telling_others(const std::exception_ptr& found_by_mpi, F&& call) {
  try {
    return std::forward<F>(call)();
  } catch (const Error&) {
    if (found_by_mpi) std::rethrow_exception(found_by_mpi);
    throw;
  }
}

}  // namespace terse::c_api
