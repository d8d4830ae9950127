// SPDX-License-Identifier: Apache-2.0
#include "interpose/unseen.hpp"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "interpose/settings.hpp"

namespace terse::interpose {
namespace {

std::atomic<bool> init_was_seen{false};
pid_t loaded_by = 0;

// Whether this is rank 0, or nobody knows: MPI itself cannot be asked after MPI_Finalize, launchers tell.
bool may_be_rank_0() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name)) return std::strcmp(rank, "0") == 0;
  }
  return true;
}

[[gnu::constructor]] void loaded() { loaded_by = getpid(); }

// At exit. A child that the program has forked says nothing: MPI is its parent's.
[[gnu::destructor]] void unloaded() {
  int initialized = 0;
  if (init_was_seen.load() || getpid() != loaded_by || !rules_are_asked_for() || !may_be_rank_0()) return;
  if (PMPI_Initialized(&initialized) != MPI_SUCCESS || !initialized) return;  // legal at any time
  std::fputs(
      "Terse: nothing was compressed, though rules are set (TERSE_CODEC or TERSE_CONFIG): this program has "
      "called MPI without passing through the drop-in. Either it takes MPI's functions from the MPI library "
      "by "
      "dlopen and dlsym, as Julia and Python's ctypes do: then link the part that calls MPI with the MPI "
      "library, "
      "or call Terse's C interface (terse.h) there. Or another tool stands before the drop-in: then leave "
      "that "
      "out\n",
      stderr);
}

}  // namespace

void note_init() noexcept { init_was_seen.store(true, std::memory_order_relaxed); }

}  // namespace terse::interpose
