// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace terse::interpose {

/// MPI_Init of the drop-in was called, in C or in Fortran. A process in which MPI was initialised without it
/// has taken MPI's functions from the MPI library itself: where rules are set, it is told so when it exits.
void note_init() noexcept;

}  // namespace terse::interpose
