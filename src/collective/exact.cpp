// SPDX-License-Identifier: Apache-2.0
//
// exact: the transport's own reduction.
//
// Steps: one reduction, then a division where the average is asked for.
// Bytes a rank: the MPI library's affair; no algorithm sends less than 2 (P - 1) / P of the tensor.
// Determinism: the MPI library's order; the same bits on all ranks where MPI gives them.
#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {

Schedule build_exact(const Problem& problem) {
  Schedule schedule;
  const Range all{0, problem.count};
  const Operand input{.space = Space::input, .elements = all};
  const Operand output{.space = Space::output, .elements = all};
  const std::uint32_t reduced = schedule.add(
      {.verb = Verb::all_reduce, .in = input, .out = output, .reduction = sum_of(problem.dtype)}, {});
  if (problem.op == Op::average) {
    schedule.add(
        {.verb = Verb::divide, .in = output, .out = output, .divisor = static_cast<double>(problem.ranks)},
        {{reduced}});
  }
  schedule.seal();
  return schedule;
}

}  // namespace terse::inline v0_1
