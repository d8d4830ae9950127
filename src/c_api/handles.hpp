// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <array>
#include <exception>
#include <terse/error.hpp>
#include <utility>

namespace terse::c_api {

inline constexpr std::size_t kErrorCodes = static_cast<std::size_t>(ErrorCode::device) + 1;

/// What the C interface keeps in MPI, for the life of MPI.
struct Handles {
  int state_key = MPI_KEYVAL_INVALID;  ///< of the attribute that is a communicator's State
  MPI_Datatype float16 = MPI_DATATYPE_NULL;
  MPI_Datatype bfloat16 = MPI_DATATYPE_NULL;
  MPI_Op average = MPI_OP_NULL;
  int error_class = MPI_ERR_OTHER;
  std::array<int, kErrorCodes> error_codes{};  ///< by ErrorCode
};

/// An MPI call failed and has called the error handler: its code is all that is left to return.
struct MpiFailure {
  int code;
};
/// An MPI call failed and has called the program's error handler, which has thrown `what`. In a type of its
/// own, since a handler may throw whatever it likes, a terse::Error too.
struct HandlerThrew {
  std::exception_ptr what;
};
/// Makes an MPI call; every one that may call an error handler of the program is made here. Errors:
/// MpiFailure, HandlerThrew.
template <class Call>
void check(Call&& call) {
  int code = MPI_SUCCESS;
  try {
    code = std::forward<Call>(call)();
  } catch (...) {
    throw HandlerThrew{std::current_exception()};
  }
  if (code != MPI_SUCCESS) throw MpiFailure{code};
}

/// Whether MPI may be called: after MPI_Init and before MPI_Finalize has begun. Thread-safe.
bool mpi_is_up() noexcept;

/// Made at the first call. Thread-safe. Errors: invalid_state where MPI is not up; those of check().
const Handles& handles();
/// The same without making them: nullptr if they never were. Error codes keep their meaning after
/// MPI_Finalize.
const Handles* handles_so_far() noexcept;

}  // namespace terse::c_api
