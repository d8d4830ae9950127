// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/types.hpp>
#include <vector>

namespace terse::test {

/// Values of a normal distribution, rounded to the dtype; a stream of its own for each (seed, rank).
std::vector<double> normal_values(std::size_t count, DType dtype, std::uint64_t seed, int rank,
                                  double deviation = 1.0);

/// Values whose sums over at most 16 ranks are exact in the dtype whatever the order, so that == holds: small
/// multiples of a power of two. None is zero.
std::vector<double> exact_values(std::size_t count, DType dtype, std::uint64_t seed, int rank);

}  // namespace terse::test
