// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <vector>

#include "c_api/arguments.hpp"

namespace terse::c_api {

/// MPI_Allreduce of each tensor. Errors: MpiFailure.
void pass_on(const Arguments& call);

/// MPI_Iallreduce of each tensor.
class Passed {
 public:
  /// Errors: MpiFailure; then nothing is under way.
  void begin(const Arguments& call);
  bool is_over() noexcept;
  /// Errors: MpiFailure of the first that failed; none is under way all the same.
  void wait();

 private:
  std::vector<MPI_Request> parts_;
  int code_ = MPI_SUCCESS;
};

}  // namespace terse::c_api
