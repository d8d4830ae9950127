// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <terse/types.hpp>

#include "session.hpp"

namespace terse::bench {

/// How far results are from the exact ones, as relative L2 norms.
struct Accuracy {
  double rel_error = 0;   ///< of the first call
  double mean_error = 0;  ///< of the mean of all calls, on the same input
  bool same_bits = true;  ///< all ranks held the same bits after the first call and after the last
};

/// Calls `allreduce`, which reduces `in` into `out`, up to `calls` times and compares the results with sums
/// (averages) in double precision. `allreduce` returns whether another call can differ: else its result
/// counts as that of all. `sums` is memory for in.count values. Collective.
Accuracy measure_accuracy(const Session& session, ConstView in, View out, Op op, std::size_t calls,
                          std::span<double> sums, const std::function<bool()>& allreduce);

}  // namespace terse::bench
