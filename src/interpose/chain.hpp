// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

namespace terse::interpose {

/// The functions that stand behind these wrappers: another tool's of the same name, or the MPI library's.
struct Chain {
  decltype(&MPI_Init) init;
  decltype(&MPI_Init_thread) init_thread;
  decltype(&MPI_Finalize) finalize;
  decltype(&MPI_Allreduce) allreduce;
};
const Chain& chain() noexcept;

}  // namespace terse::interpose
