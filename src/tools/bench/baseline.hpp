// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <string>
#include <terse/types.hpp>

#include "tensors.hpp"

namespace terse::bench {

/// The plain call that compressed ones take the place of: MPI_Allreduce with MPI_SUM, out of place.
///
/// MPI has no 16-bit floating-point types: for those it is the call that a program makes instead, of f32 and
/// the same count.
class Baseline {
 public:
  /// For up to in.count elements. `in` and `out` outlive it; 16-bit ones are copied. Errors: std::bad_alloc.
  Baseline(ConstView in, View out);

  /// Sums the first `count` elements over all ranks of `comm`. Collective.
  void run(std::size_t count, MPI_Comm comm) const;

 private:
  Tensor wide_in_;
  Tensor wide_out_;
  ConstView in_;
  View out_;
};

/// "MPI_Allreduce of f32", "MPI_Allreduce of f32 and the same count, since MPI has no bf16".
std::string describe_baseline(DType dtype);

}  // namespace terse::bench
