// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>
#include <terse/terse.h>

#include <optional>
#include <span>
#include <terse/communicator.hpp>
#include <vector>

#include "c_api/state.hpp"

namespace terse::c_api {

/// One tensor as MPI passes it.
struct Tensor {
  const void* sendbuf;
  void* recvbuf;
  MPI_Count count;
  Terse_Feedback feedback = TERSE_FEEDBACK_NULL;
};

/// An allreduce as MPI has it.
struct Arguments {
  std::span<const Tensor> tensors;
  MPI_Datatype datatype;
  MPI_Op op;
  MPI_Comm comm;
  CallOptions options{};  ///< `failure`: what this rank has found wrong already; residuals are the tensors'
};

/// The lists of a fused call: tensors, and what is wrong with the lists.
struct Lists {
  std::vector<Tensor> tensors;
  std::optional<Error> failure;
};
Lists read_lists(int tensors, const void* const sendbufs[], void* const recvbufs[], const MPI_Count counts[],
                 const Terse_Feedback feedbacks[]);

/// What a call is: MPI's, or one of Terse's.
struct Meaning {
  bool passes_on = false;
  std::vector<terse::Tensor> tensors{};
  Op op = Op::sum;
  CallOptions options{};  ///< `failure`: where this rank alone is wrong, the others hear of it
};
/// Errors: what cannot be told to other ranks.
Meaning meaning_of(const Arguments& call, const State& state);

}  // namespace terse::c_api
