// SPDX-License-Identifier: Apache-2.0
//
// For a program with the emulation of CUDA: an MPI that takes pointers to device memory, where the variable
// EMULATED_CUDA_AWARE is set. It follows them as it does any, which the emulation then lets it do.
#include <cstdlib>

#include "emulated_cuda.hpp"

namespace {

const bool aware = [] {
  const bool is_set = std::getenv("EMULATED_CUDA_AWARE") != nullptr;
  terse::test::emulated_cuda::set_host_may_touch(is_set);
  return is_set;
}();

}  // namespace

/// Found before that of the MPI library.
extern "C" int MPIX_Query_cuda_support() { return aware ? 1 : 0; }
