// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <terse/types.hpp>
#include <vector>

#include "tensors.hpp"

namespace terse::bench {

/// The type of which the plain call is that a program makes for a tensor of `dtype`.
DType baseline_dtype(DType dtype) noexcept;
/// 16-bit elements as f32. Errors: std::bad_alloc.
Tensor widened(ConstView values);

/// The plain call that compressed ones take the place of: MPI_Allreduce with MPI_SUM, out of place unless
/// `in` and `out` are the same memory.
///
/// MPI has no 16-bit floating-point types: for those it is the call that a program makes instead, of f32 and
/// the same count.
class Baseline {
 public:
  /// For up to in.count elements. `in` and `out` outlive it; 16-bit ones are copied. Errors: std::bad_alloc.
  Baseline(ConstView in, View out);

  /// Sums the first `count` elements over all ranks of `comm`. Collective.
  void run(std::size_t count, MPI_Comm comm) const { run({0, count}, comm); }

  /// Elements of the tensor.
  struct Slice {
    std::size_t begin;
    std::size_t count;
  };
  void run(Slice slice, MPI_Comm comm) const;
  /// The same begun (MPI_Iallreduce), in as many requests as it takes. Collective.
  void begin(std::size_t count, MPI_Comm comm, std::vector<MPI_Request>& requests) const;
  /// The same to be started again and again. Collective; only where persistent_call() names one.
  void init(std::size_t count, MPI_Comm comm, std::vector<MPI_Request>& requests) const;

 private:
  template <class Call>
  void in_parts(Slice slice, Call&& call) const;

  Tensor wide_in_;
  Tensor wide_out_;
  ConstView in_;
  View out_;
};

/// MPI's persistent allreduce: MPI-4's, or Open MPI's before it; nothing where this MPI has none.
std::string_view persistent_call();

/// "MPI_Allreduce of f32", "MPI_Allreduce of f32 and the same count, since MPI has no bf16".
std::string describe_baseline(DType dtype);

}  // namespace terse::bench
