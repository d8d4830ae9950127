// SPDX-License-Identifier: Apache-2.0
#include "c_api/state.hpp"

#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "c_api/handles.hpp"
#include "c_api/request.hpp"

namespace terse::c_api {
namespace {

// What the attribute points to.
using Held = std::shared_ptr<State>;

// States that MPI_Finalize deletes: to free their communicators would be to communicate. MPI frees those;
// here they stay in reach, so that no tool takes them for lost.
void leave_behind(Held* state) {
  static std::mutex adding;
  static auto& left = *new std::vector<Held*>;
  const std::lock_guard lock(adding);
  left.push_back(state);
}

}  // namespace

void State::make_communicator(const CommunicatorOptions& wanted) {
  drain();
  CommunicatorOptions kept = wanted;
  std::optional<Communicator> made(std::in_place, comm, wanted);
  if (communicator) communicator->free();
  communicator = std::move(made);
  ++communicators_made;
  options = std::move(kept);
}

Communicator& State::usable_communicator() {
  if (!communicator) make_communicator(options);
  return *communicator;
}

void State::progress() {
  for (Terse_Request request : under_way) request->is_over();
}

void State::drain() {
  for (Terse_Request request : under_way) {
    while (!request->is_over()) std::this_thread::yield();
  }
}

State& state_of(MPI_Comm comm) {
  const int key = handles().state_key;
  if (comm == MPI_COMM_NULL) {
    throw Error(ErrorCode::invalid_argument, "the communicator is MPI_COMM_NULL: only its ranks may call");
  }
  void* value = nullptr;
  int found = 0;
  check([&] { return MPI_Comm_get_attr(comm, key, &value, &found); });
  if (found) {
    State& state = **static_cast<Held*>(value);
    state.comm = comm;  // which MPI did not tell when it copied the attribute
    return state;
  }
  auto held = std::make_unique<Held>(std::make_shared<State>());
  State& state = **held;
  int inter = 0;
  check([&] { return MPI_Comm_test_inter(comm, &inter); });
  state.inter = inter != 0;
  state.comm = comm;
  check([&] { return MPI_Comm_set_attr(comm, key, held.get()); });
  static_cast<void>(held.release());
  return state;
}

int copy_state(MPI_Comm, int, void*, void* value, void* copy, int* copied) noexcept {
  *copied = 0;
  const State& original = **static_cast<const Held*>(value);
  try {
    auto held = std::make_unique<Held>(std::make_shared<State>());
    (*held)->options = original.options;
    (*held)->stream = original.stream;
    (*held)->inter = original.inter;
    *static_cast<void**>(copy) = held.release();
    *copied = 1;
    return MPI_SUCCESS;
  } catch (const std::bad_alloc&) {
    return MPI_ERR_NO_MEM;
  }
}

int delete_state(MPI_Comm, int, void* value, void*) noexcept {
  auto* held = static_cast<Held*>(value);
  if (mpi_is_up()) {
    State& state = **held;
    state.comm = MPI_COMM_NULL;
    // Waits for calls under way, whose requests keep what became of them. By name: to free the user's
    // communicator is collective, also where an exception unwinds.
    if (state.communicator) state.communicator->free();
    state.communicator.reset();
    delete held;
  } else {
    leave_behind(held);
  }
  return MPI_SUCCESS;
}

}  // namespace terse::c_api
