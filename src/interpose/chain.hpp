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

/// The function that stands behind the caller's library under this name; null if there is none.
void* next_in_line(const char* name) noexcept;

}  // namespace terse::interpose
