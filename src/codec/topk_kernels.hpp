// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <terse/types.hpp>

namespace terse::inline v0_1 {

/// Of the numbers that topk orders values by: bits of magnitudes, as signed integers of the same size.
template <class A>
struct MagnitudeOf;
template <>
struct MagnitudeOf<float> {
  using Type = std::int32_t;
  static constexpr Type kInfinite = 0x7f800000;
};
template <>
struct MagnitudeOf<double> {
  using Type = std::int64_t;
  static constexpr Type kInfinite = 0x7ff0000000000000;
};

struct TopkFound {
  std::size_t count = 0;     ///< of the values that are large enough
  std::int64_t largest = 0;  ///< magnitude of all values: bits
};

/// v = values + residual, or values where there is none, in the accumulator's type. Writes the positions of
/// those whose magnitude's bits are at least `bound` to `found`, in order; there is room for all.
TopkFound topk_collect(ConstView values, ConstView residual, View v, std::int64_t bound,
                       std::uint32_t* found);

}  // namespace terse::inline v0_1
