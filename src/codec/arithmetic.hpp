// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <terse/types.hpp>
#include <type_traits>

#include "codec/onebit_kernels.hpp"
#include "codec/quant_kernels.hpp"

// What codecs do with one element or one block, for host and device alike, so that both write the same bits.
// Nothing here may be contracted to a fused multiply-add (-ffp-contract=off, nvcc's -fmad=false). Host
// kernels do the same many elements at a time; tests hold them against these functions.

#ifdef __CUDACC__
#define TERSE_HOST_DEVICE __host__ __device__
#else
#define TERSE_HOST_DEVICE
#endif
// Compiled as part of whoever calls it: code for the oldest CPU in the midst of code for a new one is slow, a
// hundred cycles at each change between the two ways to address vectors.
#define TERSE_INTO_CALLER [[gnu::always_inline]] inline

namespace terse::inline v0_1 {

/// The type of all arithmetic with elements of type T.
template <class T>
using AccumulatorOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
TERSE_HOST_DEVICE constexpr AccumulatorOf<T> widened(T value) noexcept {
  return static_cast<AccumulatorOf<T>>(value);
}
/// Rounded to nearest even.
template <class T, class A>
TERSE_HOST_DEVICE constexpr T rounded(A value) noexcept {
  return static_cast<T>(value);
}

template <class A>
TERSE_HOST_DEVICE constexpr bool is_finite(A value) noexcept {
  return value - value == 0;
}

template <class A>
TERSE_HOST_DEVICE constexpr A magnitude_of(A value) noexcept {
  using Bits = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;
  return std::bit_cast<A>(static_cast<Bits>(std::bit_cast<Bits>(value) & (~Bits{0} >> 1)));
}

template <class A>
TERSE_HOST_DEVICE constexpr bool has_sign(A value) noexcept {
  using Bits = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;
  return (std::bit_cast<Bits>(value) >> (8 * sizeof(A) - 1)) != 0;
}

/// A residual as it is kept: in the accumulator's type, or rounded to bf16. What would round to infinity is
/// truncated, so that a large residual does not spoil all that comes after it; a quiet NaN stays NaN.
template <class E, class A>
TERSE_HOST_DEVICE constexpr E kept(A value) noexcept {
  if constexpr (std::is_same_v<E, A>) {
    return value;
  } else {
    static_assert(std::is_same_v<E, bfloat16> && std::is_same_v<A, float>);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const bool large = (bits & 0x7fffffffu) > 0x7f7f7fffu;
    const std::uint32_t up = large ? 0u : 0x7fffu + ((bits >> 16) & 1u);
    return bfloat16::from_bits(static_cast<std::uint16_t>((bits + up) >> 16));
  }
}

/// Calls run(T{}) with the C++ type of an element.
template <class Run>
auto with_element_type(DType dtype, Run&& run) {
  switch (dtype) {
    case DType::f64:
      return run(double{});
    case DType::f16:
      return run(float16{});
    case DType::bf16:
      return run(bfloat16{});
    case DType::f32:
      break;
  }
  return run(float{});
}

/// Division by one number, many times: a power of two divides by a product, which gives the same bits.
template <class A>
struct Divisor {
  explicit Divisor(double by) noexcept : number(static_cast<A>(by)) {
    int exponent = 0;
    multiplies = std::frexp(by, &exponent) == 0.5;
    if (multiplies) number = 1 / number;
  }
  TERSE_HOST_DEVICE A operator()(A value) const noexcept {
    return multiplies ? value * number : value / number;
  }

  A number;
  bool multiplies = false;
};

// --- onebit ---

// The bits must not depend on the vector length, nor on whether a GPU or a CPU made them. So a block's sum is
// defined as 64 running sums, element i of the block going to sum i mod 64 in order of i, which are then
// added as a tree: sum j and sum j + 32, then j + 16, ... 1. A product is rounded before it is added.
inline constexpr std::size_t kOnebitGroup = 64;
/// Elements of a block that are summed at a stretch, in whole groups: a long block is summed in runs, whose
/// sums are added in double, so that small terms are not lost beside a large sum.
inline constexpr std::size_t kOnebitRun = 8192;

/// What an element adds to its sum.
template <class A>
TERSE_HOST_DEVICE constexpr A onebit_term(A v, OnebitScale scale) noexcept {
  return scale == OnebitScale::l1 ? magnitude_of(v) : v * v;
}

/// A block's scale before it is rounded to the tensor's type, for n elements: `last_run` is the sum of the
/// last run of them, `total` that of all runs.
template <class A>
TERSE_HOST_DEVICE A onebit_scale(A last_run, double total, std::size_t n, OnebitScale scale) noexcept {
  const A mean =
      n <= kOnebitRun ? last_run / static_cast<A>(n) : static_cast<A>(total / static_cast<double>(n));
  return scale == OnebitScale::l1 ? mean : std::sqrt(mean);
}

/// Calls use(value) with a scale as it lies in a message of a tensor of type `as`.
template <class A, class Use>
TERSE_HOST_DEVICE auto with_stored_scale(A scale, DType as, Use&& use) {
  switch (as) {
    case DType::f64:
      return use(static_cast<double>(scale));
    case DType::f32:
      return use(static_cast<float>(scale));
    case DType::f16:
      return use(float16(static_cast<float>(scale)));
    case DType::bf16:
      break;
  }
  return use(bfloat16(static_cast<float>(scale)));
}

/// A scale rounded to the tensor's type.
template <class A>
TERSE_HOST_DEVICE A onebit_rounded_scale(A scale, DType as) noexcept {
  return with_stored_scale(scale, as, [](auto stored) { return static_cast<A>(widened(stored)); });
}

/// What those who decode will hold of a rounded scale, over `factor`; not finite where they cannot hold it.
template <class A>
TERSE_HOST_DEVICE A onebit_received_scale(A scale, double factor, DType as) noexcept {
  if (factor == 1.0) return scale;
  const A held = onebit_rounded_scale(scale * static_cast<A>(factor), as);
  return is_finite(held) ? held / static_cast<A>(factor) : held;
}

template <class A>
TERSE_HOST_DEVICE void store_onebit_scale(A scale, DType as, std::byte* out) noexcept {
  with_stored_scale(scale, as, [&](auto stored) { std::memcpy(out, &stored, sizeof stored); });
}

template <class A>
TERSE_HOST_DEVICE A load_onebit_scale(const std::byte* in, DType as) noexcept {
  return with_stored_scale(A{}, as, [&](auto stored) {
    std::memcpy(&stored, in, sizeof stored);
    return static_cast<A>(widened(stored));
  });
}

/// Whether an encoder may have written this scale.
template <class A>
TERSE_HOST_DEVICE constexpr bool is_onebit_scale(A scale) noexcept {
  return is_finite(scale) && !has_sign(scale);
}

/// Both zeros count as positive.
template <class A>
TERSE_HOST_DEVICE constexpr bool onebit_negative(A v) noexcept {
  return v < 0;
}

// --- quant ---

/// The values that a block's codes stand for: (code - zero) * scale, code from 0 to top.
template <class A>
struct QuantGrid {
  A scale = 0;
  A inverse = 0;
  unsigned zero = 0;
  unsigned top = 0;

  /// The largest magnitude among them.
  TERSE_HOST_DEVICE A largest() const noexcept {
    return static_cast<A>(zero > top - zero ? zero : top - zero) * scale;
  }
};

/// The grid of a block whose values, and zero, lie from `low` to `high`, both finite. Rounded to nearest,
/// none is further off than half a scale. For stochastic rounding, both ends lie within the grid. Where the
/// scale would be no normal number, so small are the values, it is 0 and all stand for 0.
template <class A>
TERSE_INTO_CALLER TERSE_HOST_DEVICE QuantGrid<A> quant_grid(A low, A high,
                                                            const QuantFormat& format) noexcept {
  constexpr A kLeast = sizeof(A) == 8 ? static_cast<A>(0x1p-1022) : static_cast<A>(0x1p-126f);
  QuantGrid<A> grid;
  grid.top = format.top();
  if (format.range == QuantRange::symmetric) {
    grid.zero = grid.top / 2;
    grid.scale = (-low > high ? -low : high) / static_cast<A>(grid.zero);
  } else {
    const A steps = static_cast<A>(format.rounding == Rounding::nearest ? grid.top : grid.top - 1);
    grid.scale = high / steps - low / steps;
  }
  if (!(grid.scale >= kLeast)) {
    grid.scale = 0;
    grid.zero = grid.top / 2;
    return grid;
  }
  grid.inverse = 1 / grid.scale;
  if (format.range == QuantRange::minmax) {
    const A at = -low * grid.inverse;
    const auto whole = static_cast<unsigned>(at);
    const A part = at - static_cast<A>(whole);
    const bool up = format.rounding == Rounding::nearest ? part >= static_cast<A>(0.5) : part > 0;
    grid.zero = whole + (up ? 1u : 0u);
    if (grid.zero > grid.top) grid.zero = grid.top;
  }
  return grid;
}

}  // namespace terse::inline v0_1
