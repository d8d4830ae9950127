// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <terse/communicator.hpp>

namespace terse::c_api {

/// Sets the options that have a key. What is wrong with one, which it names, becomes `options.failure`.
void read_info(MPI_Info info, AllreduceOptions& options);

}  // namespace terse::c_api
