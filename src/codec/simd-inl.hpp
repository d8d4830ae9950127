// SPDX-License-Identifier: Apache-2.0
// Included once per SIMD target by Highway's foreach_target, hence the guard that toggles.

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <terse/types.hpp>
#include <type_traits>

#if defined(TERSE_CODEC_SIMD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TERSE_CODEC_SIMD_INL
#undef TERSE_CODEC_SIMD_INL
#else
#define TERSE_CODEC_SIMD_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 64 lanes, so that a group of 64 elements is a whole number of vectors.
template <class A>
using Lanes64 = hn::CappedTag<A, 64>;

// What is encoded: x, or x + e, where e takes what is left out.
template <class A, bool kFeedback>
struct Summands {
  const A* x;
  A* e;

  Summands from(std::size_t at) const { return {x + at, kFeedback ? e + at : nullptr}; }
  A value(std::size_t i) const { return kFeedback ? x[i] + e[i] : x[i]; }
  HWY_INLINE hn::Vec<Lanes64<A>> load(std::size_t i) const {
    const Lanes64<A> d;
    const auto v = hn::LoadU(d, x + i);
    if constexpr (kFeedback) {
      return hn::Add(v, hn::LoadU(d, e + i));
    } else {
      return v;
    }
  }
  HWY_INLINE void leave(hn::Vec<Lanes64<A>> v, std::size_t i) const {
    if constexpr (kFeedback) hn::StoreU(v, Lanes64<A>(), e + i);
  }
  // Asks for the line of element i, if it begins one, as far as a second-level cache: a core does not read on
  // in memory while it works on what it has.
  HWY_INLINE void ask_for(std::size_t i) const {
    constexpr std::size_t kLine = 64 / sizeof(A);
    constexpr int kSecondLevel = 2;
    if (i % kLine != 0) return;
    __builtin_prefetch(x + i, 0, kSecondLevel);
    if constexpr (kFeedback) __builtin_prefetch(e + i, 0, kSecondLevel);
  }
};

// The largest magnitude; NaN where a value is not finite. Of whole groups, which have an even number of
// vectors.
template <class A, bool kFeedback>
HWY_INLINE A largest_of(const Summands<A, kFeedback>& v, std::size_t n) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t second = lanes == 64 ? 0 : lanes;  // twice the same, if a group is one vector
  auto most0 = hn::Zero(d);
  auto most1 = most0;
  auto bad0 = most0;  // stay zero unless some value times zero is NaN
  auto bad1 = most0;
  for (std::size_t i = 0; i < n; i += lanes + second) {
    const auto x = v.load(i);
    const auto y = v.load(i + second);
    most0 = hn::Max(most0, hn::Abs(x));
    most1 = hn::Max(most1, hn::Abs(y));
    bad0 = hn::Or(bad0, hn::Mul(x, hn::Zero(d)));
    bad1 = hn::Or(bad1, hn::Mul(y, hn::Zero(d)));
  }
  if (!hn::AllTrue(d, hn::Eq(hn::Or(bad0, bad1), hn::Zero(d)))) return std::numeric_limits<A>::quiet_NaN();
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(most0, most1)));
}

// Calls run(summands) for values of type float or double, and their residual or null.
template <class Run>
auto with_summands(ConstView values, void* residual, Run&& run) {
  const auto typed = [&]<class A>(const A* x) {
    return residual == nullptr ? run(Summands<A, false>{x, nullptr})
                               : run(Summands<A, true>{x, static_cast<A*>(residual)});
  };
  return values.dtype == DType::f64 ? typed(static_cast<const double*>(values.data))
                                    : typed(static_cast<const float*>(values.data));
}

// Running sums, as many as a group of 64 has elements, added as a tree: the order does not depend on the
// lanes.
template <class A>
HWY_INLINE A add_tree(A* sums) {
  for (std::size_t half = 32; half > 0; half /= 2) {
    for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

// Loads memory elements of type T as lanes of type A = float or double, from any alignment. Hardware f16
// conversion is used where it rounds to nearest even; elsewhere the integer version of float16 in types.hpp,
// lane by lane.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_as(D d, const T* p) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    return hn::LoadU(d, p);
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const hn::RebindToSigned<D> i32;
    [[maybe_unused]] const auto above = [&](auto bits, std::int32_t limit) {  // bits < 2^31
      return hn::RebindMask(d32, hn::Gt(hn::BitCast(i32, bits), hn::Set(i32, limit)));
    };
    const auto bits16 = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(p));
    if constexpr (std::is_same_v<T, bfloat16>) {
      return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits16)));
    } else {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
      return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits16));
#else
      const auto bits = hn::PromoteTo(d32, bits16);
      const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
      const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
      // the exponent's bias is 112 too small; a product mends it and normalises subnormals
      const auto scaled = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, 0x1p112f));
      const auto special = above(magnitude, 0x0f7fffff);
      const auto value =
          hn::IfThenElse(special, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)), hn::BitCast(d32, scaled));
      return hn::BitCast(d, hn::Or(sign, value));
#endif
    }
  }
}

template <class D, class T>
HWY_INLINE void store_as(D d, hn::Vec<D> v, T* p) {
  if constexpr (std::is_same_v<T, hn::TFromD<D>>) {
    hn::StoreU(v, d, p);
  } else {
    const hn::Rebind<std::uint16_t, D> d16;
    auto* p16 = reinterpret_cast<std::uint16_t*>(p);
    const hn::RebindToUnsigned<D> d32;
    const hn::RebindToSigned<D> i32;
    [[maybe_unused]] const auto above = [&](auto bits, std::int32_t limit) {  // bits < 2^31
      return hn::RebindMask(d32, hn::Gt(hn::BitCast(i32, bits), hn::Set(i32, limit)));
    };
    [[maybe_unused]] const auto narrow = [&](auto bits) {  // lanes below 2^16
      hn::StoreU(hn::DemoteTo(d16, hn::BitCast(i32, bits)), d16, p16);
    };
    if constexpr (std::is_same_v<T, bfloat16>) {
      const auto bits = hn::BitCast(d32, v);
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
      const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fffu)));
      const auto is_nan = above(hn::And(bits, hn::Set(d32, 0x7fffffff)), 0x7f800000);
      narrow(hn::ShiftRight<16>(hn::IfThenElse(is_nan, hn::Or(bits, hn::Set(d32, 0x400000u)), rounded)));
    } else {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
      hn::StoreU(hn::BitCast(d16, hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v)), d16, p16);
#else
      const auto bits = hn::BitCast(d32, v);
      const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 0x8000u));
      const auto magnitude = hn::And(bits, hn::Set(d32, 0x7fffffffu));
      const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(d32, 1u));
      const auto normal = hn::ShiftRight<13>(
          hn::Add(hn::Sub(magnitude, hn::Set(d32, 0x38000000u)), hn::Add(odd, hn::Set(d32, 0xfffu))));
      const auto shifted = hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5f));
      const auto subnormal = hn::Sub(hn::BitCast(d32, shifted), hn::Set(d32, 0x3f000000u));
      auto half = hn::IfThenElse(above(magnitude, 0x387fffff), normal, subnormal);
      half = hn::IfThenElse(above(magnitude, 0x477fffff), hn::Set(d32, 0x7c00u), half);
      half = hn::IfThenElse(above(magnitude, 0x7f800000), hn::Set(d32, 0x7e00u), half);
      narrow(hn::Or(sign, half));
#endif
    }
  }
}

// Whether rounding to bf16 may meet values that are beyond its range, or not finite.
enum class Range : std::uint8_t { any, safe };

// A residual as it is kept: in the lanes' type, or rounded to bf16. What would round to infinity is
// truncated, so that a large residual does not spoil all that comes after it; a quiet NaN stays NaN.
template <Range kRange = Range::any, class D, class E>
HWY_INLINE void store_residual(D d, hn::Vec<D> v, E* e) {
  if constexpr (std::is_same_v<E, hn::TFromD<D>>) {
    hn::StoreU(v, d, e);
  } else {
    static_assert(std::is_same_v<E, bfloat16>);
    const hn::Rebind<std::uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const hn::RebindToSigned<D> i32;
    const auto bits = hn::BitCast(d32, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
    auto up = hn::Add(odd, hn::Set(d32, 0x7fffu));
    if constexpr (kRange == Range::any) {
      const auto magnitude = hn::BitCast(i32, hn::And(bits, hn::Set(d32, 0x7fffffffu)));
      up = hn::IfThenZeroElse(hn::RebindMask(d32, hn::Gt(magnitude, hn::Set(i32, 0x7f7f7fff))), up);
    }
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(i32, hn::ShiftRight<16>(hn::Add(bits, up)))), d16,
               reinterpret_cast<std::uint16_t*>(e));
  }
}

// Calls f(d, in pointers..., out pointer) for every full vector, then once on padded copies for the rest. A
// is the lane type; Out and In are what lies in memory.
template <class A, class Out, class F, class... In>
HWY_INLINE void for_vectors(std::size_t n, Out* out, F&& f, const In*... in) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) f(d, out + i, in + i...);
  if (i == n) return;
  const std::size_t rest = n - i;
  Out tail[64] = {};
  std::memcpy(tail, out + i, rest * sizeof(Out));
  [[maybe_unused]] const auto padded = [&](const auto* p) {
    struct {
      std::remove_cv_t<std::remove_reference_t<decltype(*p)>> values[64] = {};
    } copy;
    std::memcpy(copy.values, p + i, rest * sizeof(*p));
    return copy;
  };
  f(d, tail, padded(in).values...);
  std::memcpy(out + i, tail, rest * sizeof(Out));
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();
#endif
