// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// For each position of a block (a power of two of them) a word of which the top bit says whether the sign
/// changes there; its other bits are zero.
using HadamardSigns = std::span<const std::uint32_t>;

/// to = H D from / sqrt(m), and the way back, to = D H from / sqrt(m), block by block: values of one
/// accumulator type; `to` may be `from`. D is the signs; H is Sylvester's matrix of m rows, applied as steps
/// of sums and differences of elements 1, 2, 4, ... apart, in this order; the results are multiplied once, by
/// 1 / sqrt(m) rounded from double. Of a last block that is short, the powers of two that it is the sum of,
/// from the largest down, are blocks of their own, whose signs are those of their positions.
///
/// Return the largest magnitude that they found; what is not finite where one of the values is not.
double hadamard_forward(ConstView from, View to, HadamardSigns signs);
double hadamard_inverse(ConstView from, View to, HadamardSigns signs);

}  // namespace terse::inline v0_1
