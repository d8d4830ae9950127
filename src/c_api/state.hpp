// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>
#include <terse/terse.h>

#include <optional>
#include <terse/communicator.hpp>

namespace terse::c_api {

inline constexpr Terse_Outcome kNoOutcome{TERSE_RESULT_NONE, TERSE_REASON_NONE, "", 0, 0};

/// What the C interface knows of one of the user's communicators: an attribute of it.
struct State {
  AllreduceOptions options;                  ///< what Terse_Comm_set_info has set
  std::optional<Communicator> communicator;  ///< made at first use
  Terse_Outcome outcome = kNoOutcome;
  bool inter = false;

  /// Makes `communicator` with these options in place of what there is. Collective. Errors: those of
  /// Communicator, on all ranks alike; then all is as before.
  void make_communicator(MPI_Comm comm, const AllreduceOptions& wanted);
};

/// Adds an empty one where there is none. Local. Errors: invalid_state where MPI is not up, invalid_argument
/// for MPI_COMM_NULL, MpiFailure.
State& state_of(MPI_Comm comm);

/// The attribute's callbacks. A duplicate inherits the options.
int copy_state(MPI_Comm comm, int key, void* extra, void* value, void* copy, int* copied) noexcept;
int delete_state(MPI_Comm comm, int key, void* value, void* extra) noexcept;

}  // namespace terse::c_api
