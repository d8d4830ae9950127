// SPDX-License-Identifier: Apache-2.0
//
// Terse_Allreduce and its variants.
#include <mpi.h>
#include <terse/terse.h>

#include <terse/communicator.hpp>

#include "c_api/arguments.hpp"
#include "c_api/handles.hpp"
#include "c_api/info.hpp"
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
    state.outcome = in_c(state.usable_communicator().allreduce(meaning.tensors, meaning.op, meaning.options));
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

int Terse_Allreduce_with(const void* sendbuf, void* recvbuf, MPI_Count count, MPI_Datatype datatype,
                         MPI_Op op, MPI_Comm comm, const Terse_Options* options) {
  return run("Terse_Allreduce_with", comm, [&] {
    handles();
    Tensor tensor{sendbuf, recvbuf, count};
    terse::CallOptions own;
    const std::exception_ptr found_by_mpi = read_options(options, own, &tensor.feedback);
    return telling_others(found_by_mpi, [&] { return allreduce({{&tensor, 1}, datatype, op, comm, own}); });
  });
}

int Terse_Allreduce_fused(int tensors, const void* const sendbufs[], void* const recvbufs[],
                          const MPI_Count counts[], MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
                          const Terse_Feedback feedbacks[], const Terse_Options* options) {
  return run("Terse_Allreduce_fused", comm, [&] {
    handles();
    const Lists lists = read_lists(tensors, sendbufs, recvbufs, counts, feedbacks);
    terse::CallOptions own;
    const std::exception_ptr found_by_mpi = read_options(options, own, nullptr);
    if (lists.failure) own.failure = lists.failure;
    return telling_others(found_by_mpi, [&] { return allreduce({lists.tensors, datatype, op, comm, own}); });
  });
}
