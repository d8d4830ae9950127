// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <exception>
#include <vector>

#include "c_api/arguments.hpp"

namespace terse::c_api {

/// MPI_Allreduce of each tensor. Errors: those of check().
void pass_on(const Arguments& call);

/// MPI_Iallreduce of each tensor.
class Passed {
 public:
  /// Errors: those of check(), std::bad_alloc; then nothing is under way.
  void begin(const Arguments& call);
  /// What fails is kept for wait().
  bool is_over();
  /// Errors: those of check(), for the first that failed; none is under way all the same.
  void wait();

 private:
  template <class Call>
  bool succeeds(Call&& call);

  std::vector<MPI_Request> parts_;
  std::exception_ptr failure_;  // the first
};

}  // namespace terse::c_api
