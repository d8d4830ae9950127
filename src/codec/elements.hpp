// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <limits>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

// Element-wise arithmetic on host memory, vectorised, the same bits on every machine. The views of one call
// have equal counts; their types are equal, or one is the other's accumulator.

/// The largest finite value.
constexpr double largest_finite(DType dtype) noexcept {
  switch (dtype) {
    case DType::f16:
      return 65504;
    case DType::bf16:
      return 0x1.FEp127;
    case DType::f32:
      return std::numeric_limits<float>::max();
    case DType::f64:
      break;
  }
  return std::numeric_limits<double>::max();
}

/// to = factor * from, or to += factor * from, computed in the accumulator's type.
void convert(ConstView from, View to, Into into, double factor);

/// to = from (of the accumulator's type) rounded to nearest even; says whether all of `to` is finite.
bool round_to(ConstView from, View to);

/// to = a + b and to = a - b, all of one accumulator type; `to` may be a or b. Where that type is f32, the b
/// of a sum and the `to` of a difference may be a residual of bf16.
void add(ConstView a, ConstView b, View to);
void subtract(ConstView a, ConstView b, View to);

/// to = from, of the accumulator's type, as a residual is kept: see Codec::encode.
void keep(ConstView from, View to);

/// values /= divisor, in the accumulator's type, rounded to the values' type.
void divide(View values, double divisor);

}  // namespace terse::inline v0_1
