// SPDX-License-Identifier: Apache-2.0
#include "c_api/state.hpp"

#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "c_api/handles.hpp"

namespace terse::c_api {
namespace {

// Whether this thread makes a Communicator: the duplicate that this takes needs no State.
thread_local bool duplicating = false;

// States that MPI_Finalize deletes: to free their communicators would be to communicate. MPI frees those;
// here they stay in reach, so that no tool takes them for lost.
void leave_behind(State* state) {
  static std::mutex adding;
  static auto& left = *new std::vector<State*>;
  const std::lock_guard lock(adding);
  left.push_back(state);
}

}  // namespace

void State::make_communicator(MPI_Comm comm, const AllreduceOptions& wanted) {
  struct Duplicating {
    Duplicating() { duplicating = true; }
    ~Duplicating() { duplicating = false; }
    Duplicating(const Duplicating&) = delete;
    Duplicating& operator=(const Duplicating&) = delete;
  };
  AllreduceOptions kept = wanted;
  std::optional<Communicator> made;
  {
    const Duplicating here;
    made.emplace(comm, wanted);
  }
  if (communicator) communicator->free();
  communicator = std::move(made);
  options = std::move(kept);
}

State& state_of(MPI_Comm comm) {
  const int key = handles().state_key;
  if (comm == MPI_COMM_NULL) {
    throw Error(ErrorCode::invalid_argument, "the communicator is MPI_COMM_NULL: only its ranks may call");
  }
  void* held = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(comm, key, &held, &found));
  if (found) return *static_cast<State*>(held);
  auto state = std::make_unique<State>();
  int inter = 0;
  check(MPI_Comm_test_inter(comm, &inter));
  state->inter = inter != 0;
  check(MPI_Comm_set_attr(comm, key, state.get()));
  return *state.release();
}

int copy_state(MPI_Comm, int, void*, void* value, void* copy, int* copied) noexcept {
  *copied = 0;
  if (duplicating) return MPI_SUCCESS;
  const auto& original = *static_cast<const State*>(value);
  try {
    auto state = std::make_unique<State>();
    state->options = original.options;
    state->inter = original.inter;
    *static_cast<void**>(copy) = state.release();
    *copied = 1;
    return MPI_SUCCESS;
  } catch (const std::bad_alloc&) {
    return MPI_ERR_NO_MEM;
  }
}

int delete_state(MPI_Comm, int, void* value, void*) noexcept {
  auto* state = static_cast<State*>(value);
  if (mpi_is_up()) {
    delete state;
  } else {
    leave_behind(state);
  }
  return MPI_SUCCESS;
}

}  // namespace terse::c_api
