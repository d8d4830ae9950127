// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <array>
#include <terse/error.hpp>

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
inline void check(int code) {
  if (code != MPI_SUCCESS) throw MpiFailure{code};
}

/// Whether MPI may be called: after MPI_Init and before MPI_Finalize has begun. Thread-safe.
bool mpi_is_up() noexcept;

/// Made at the first call. Thread-safe. Errors: invalid_state where MPI is not up; MpiFailure.
const Handles& handles();
/// The same without making them: nullptr if they never were. Error codes keep their meaning after
/// MPI_Finalize.
const Handles* handles_so_far() noexcept;

}  // namespace terse::c_api
