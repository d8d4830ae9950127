// SPDX-License-Identifier: Apache-2.0
//
// Terse_Allreduce and its variants.
#include <mpi.h>
#include <terse/terse.h>

#include <terse/communicator.hpp>

#include "c_api/arguments.hpp"
#include "c_api/handles.hpp"
#include "c_api/outcome.hpp"
#include "c_api/passing.hpp"
#include "c_api/raise.hpp"
#include "c_api/state.hpp"

namespace terse::c_api {
namespace {

int allreduce(const Arguments& call) {
  handles();
  if (call.comm == MPI_COMM_NULL && !call.tensors.empty()) {
    pass_on(call);  // MPI refuses it
    return MPI_SUCCESS;
  }
  State& state = state_of(call.comm);
  state.outcome = kNoOutcome;
  const Meaning meaning = meaning_of(call, state);
  if (meaning.passes_on) {
    state.drain();
    pass_on(call);
    state.outcome = outcome_of_passed(call.tensors);
  } else {
    state.outcome = in_c(state.usable_communicator().allreduce(meaning.tensors, meaning.options));
  }
  return MPI_SUCCESS;
}

int allreduce_one(const char* where, const Tensor& tensor, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm) {
  return run(where, comm, [&] { return allreduce({{&tensor, 1}, datatype, op, comm}); });
}

}  // namespace
}  // namespace terse::c_api

using namespace terse::c_api;

int Terse_Allreduce(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                    MPI_Comm comm) {
  return allreduce_one("Terse_Allreduce", {sendbuf, recvbuf, count}, datatype, op, comm);
}

int Terse_Allreduce_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype, MPI_Op op,
                      MPI_Comm comm) {
  return allreduce_one("Terse_Allreduce_c", {sendbuf, recvbuf, count}, datatype, op, comm);
}

int Terse_Allreduce_feedback(const void* sendbuf, void* recvbuf, int count, MPI_Datatype datatype, MPI_Op op,
                             MPI_Comm comm, Terse_Feedback feedback) {
  return allreduce_one("Terse_Allreduce_feedback", {sendbuf, recvbuf, count, feedback}, datatype, op, comm);
}

int Terse_Allreduce_feedback_c(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                               MPI_Op op, MPI_Comm comm, Terse_Feedback feedback) {
  return allreduce_one("Terse_Allreduce_feedback_c", {sendbuf, recvbuf, count, feedback}, datatype, op, comm);
}

int Terse_Allreduce_fused(int tensors, const void* const sendbufs[], void* const recvbufs[],
                          const MPI_Count counts[], MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                          const Terse_Feedback feedbacks[]) {
  return run("Terse_Allreduce_fused", comm, [&] {
    const Lists lists = read_lists(tensors, sendbufs, recvbufs, counts, feedbacks);
    return allreduce({lists.tensors, datatype, op, comm, lists.failure});
  });
}
