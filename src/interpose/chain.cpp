// SPDX-License-Identifier: Apache-2.0
#include "interpose/chain.hpp"

#include <dlfcn.h>

namespace terse::interpose {
namespace {

template <class F>
F next_or(const char* name, F last) noexcept {
  void* found = dlsym(RTLD_NEXT, name);
  return found != nullptr ? reinterpret_cast<F>(found) : last;
}

}  // namespace

const Chain& chain() noexcept {
  static const Chain found = {next_or("MPI_Init", &PMPI_Init), next_or("MPI_Init_thread", &PMPI_Init_thread),
                              next_or("MPI_Finalize", &PMPI_Finalize),
                              next_or("MPI_Allreduce", &PMPI_Allreduce)};
  return found;
}

}  // namespace terse::interpose
