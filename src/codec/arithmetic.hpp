// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <terse/types.hpp>
#include <type_traits>

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
TERSE_HOST_DEVICE auto with_element_type(DType dtype, Run&& run) {
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

// --- what block codecs share ---

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

/// A scale rounded to the type of its tensor.
template <class A>
TERSE_HOST_DEVICE A rounded_scale(A scale, DType as) noexcept {
  return with_stored_scale(scale, as, [](auto stored) { return static_cast<A>(widened(stored)); });
}

/// Whether an encoder may have written this scale.
template <class A>
TERSE_HOST_DEVICE constexpr bool is_block_scale(A scale) noexcept {
  return is_finite(scale) && !has_sign(scale);
}

}  // namespace terse::inline v0_1
