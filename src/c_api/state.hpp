// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>
#include <terse/terse.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <terse/communicator.hpp>
#include <vector>

namespace terse::c_api {

inline constexpr Terse_Outcome kNoOutcome{TERSE_RESULT_NONE, TERSE_REASON_NONE, "", 0, 0};

/// What the C interface knows of one of the user's communicators: an attribute of it, which requests keep.
struct State : std::enable_shared_from_this<State> {
  MPI_Comm comm = MPI_COMM_NULL;             ///< the user's; none once it was freed
  CommunicatorOptions options;               ///< what Terse_Comm_set_info has set
  void* stream = nullptr;                    ///< what Terse_Comm_set_stream has set
  std::optional<Communicator> communicator;  ///< made at first use
  std::uint64_t communicators_made = 0;
  Terse_Outcome outcome = kNoOutcome;
  bool inter = false;
  std::vector<Terse_Request> under_way;  ///< with calls of `communicator` and of those before it

  /// Makes `communicator` with these options in place of what there is. Collective. Errors: those of
  /// Communicator, on all ranks alike; then all is as before.
  void make_communicator(const CommunicatorOptions& wanted);
  /// `communicator`, made where there is none yet: collective then.
  Communicator& usable_communicator();
  /// Does what can be done without waiting for what is under way: MPI's own calls do nothing for it.
  void progress();
  /// Before a call that blocks in MPI: that may wait for ranks that wait for this one in an earlier call.
  void drain();
};

/// Adds an empty one where there is none. Local. Errors: invalid_state where MPI is not up, invalid_argument
/// for MPI_COMM_NULL, those of check().
State& state_of(MPI_Comm comm);

/// The attribute's callbacks. A duplicate inherits the options.
int copy_state(MPI_Comm comm, int key, void* extra, void* value, void* copy, int* copied) noexcept;
int delete_state(MPI_Comm comm, int key, void* value, void* extra) noexcept;

}  // namespace terse::c_api
