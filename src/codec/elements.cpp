// SPDX-License-Identifier: Apache-2.0
#include "codec/elements.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/elements.cpp"
#include <hwy/foreach_target.h>

#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

template <class A, class From, class To>
void convert_elements(const From* from, To* to, std::size_t n, Into into, double factor) {
  const auto scale = static_cast<A>(factor);
  if (into != Into::add) {
    for_vectors<A>(
        n, to,
        [&](auto d, To* o, const From* p) { store_as(d, hn::Mul(load_as(d, p), hn::Set(d, scale)), o); },
        from);
  } else {
    for_vectors<A>(
        n, to,
        [&](auto d, To* o, const From* p) {
          store_as(d, hn::Add(load_as(d, o), hn::Mul(load_as(d, p), hn::Set(d, scale))), o);
        },
        from);
  }
}

void convert_views(ConstView from, View to, Into into, double factor) {
  const auto pair = [&]<class A, class From, class To>(A, From, To) {
    convert_elements<A>(static_cast<const From*>(from.data), static_cast<To*>(to.data), from.count, into,
                        factor);
  };
  const auto half = [&]<class H>(H h) {
    if (from.dtype == DType::f32) return pair(0.0f, 0.0f, h);
    if (to.dtype == DType::f32) return pair(0.0f, h, 0.0f);
    return pair(0.0f, h, h);
  };
  if (from.dtype == DType::f64) return pair(0.0, 0.0, 0.0);
  if (from.dtype == DType::f16 || to.dtype == DType::f16) return half(float16{});
  if (from.dtype == DType::bf16 || to.dtype == DType::bf16) return half(bfloat16{});
  return pair(0.0f, 0.0f, 0.0f);
}

template <class A, class To>
bool round_elements(const A* from, To* to, std::size_t n) {
  const Lanes64<A> tag;
  auto bad = hn::Zero(tag);  // stays zero unless some value times zero is NaN
  for_vectors<A>(
      n, to,
      [&](auto d, To* o, const A* p) {
        store_as(d, load_as(d, p), o);
        bad = hn::Or(bad, hn::Mul(load_as(d, o), hn::Zero(d)));
      },
      from);
  return hn::AllTrue(tag, hn::Eq(bad, hn::Zero(tag)));
}

bool round_views(ConstView from, View to) {
  const auto* p = static_cast<const float*>(from.data);
  switch (to.dtype) {
    case DType::f64:
      return round_elements(static_cast<const double*>(from.data), static_cast<double*>(to.data), from.count);
    case DType::f32:
      return round_elements(p, static_cast<float*>(to.data), from.count);
    case DType::f16:
      return round_elements(p, static_cast<float16*>(to.data), from.count);
    case DType::bf16:
      break;
  }
  return round_elements(p, static_cast<bfloat16*>(to.data), from.count);
}

template <class A, class B>
void add_elements(const A* a, const B* b, A* to, std::size_t n) {
  for_vectors<A>(
      n, to,
      [](auto d, A* o, const A* p, const B* q) { store_as(d, hn::Add(load_as(d, p), load_as(d, q)), o); }, a,
      b);
}

template <class A, class To>
void subtract_elements(const A* a, const A* b, To* to, std::size_t n) {
  for_vectors<A>(
      n, to,
      [](auto d, To* o, const A* p, const A* q) {
        store_residual(d, hn::Sub(load_as(d, p), load_as(d, q)), o);
      },
      a, b);
}

// Calls run with a value of the accumulator's type and one of the residual's.
void with_residual(DType accumulator, DType residual, auto&& run) {
  if (accumulator == DType::f64) return run(0.0, 0.0);
  if (residual == DType::bf16) return run(0.0f, bfloat16{});
  run(0.0f, 0.0f);
}

void add_views(ConstView a, ConstView b, View to) {
  with_residual(a.dtype, b.dtype, [&]<class A, class E>(A, E) {
    add_elements(static_cast<const A*>(a.data), static_cast<const E*>(b.data), static_cast<A*>(to.data),
                 a.count);
  });
}

void subtract_views(ConstView a, ConstView b, View to) {
  with_residual(a.dtype, to.dtype, [&]<class A, class E>(A, E) {
    subtract_elements(static_cast<const A*>(a.data), static_cast<const A*>(b.data), static_cast<E*>(to.data),
                      a.count);
  });
}

void keep_view(ConstView from, View to) {
  for_vectors<float>(
      from.count, static_cast<bfloat16*>(to.data),
      [](auto d, bfloat16* o, const float* p) { store_residual(d, load_as(d, p), o); },
      static_cast<const float*>(from.data));
}

template <class A, class T>
void divide_elements(T* values, std::size_t n, double divisor) {
  const auto by = static_cast<A>(divisor);
  int exponent = 0;
  if (std::frexp(divisor, &exponent) == 0.5) {  // a power of two: the same bits by a product, which is faster
    const A factor = 1 / by;
    for_vectors<A>(n, values,
                   [&](auto d, T* o) { store_as(d, hn::Mul(load_as(d, o), hn::Set(d, factor)), o); });
    return;
  }
  for_vectors<A>(n, values, [&](auto d, T* o) { store_as(d, hn::Div(load_as(d, o), hn::Set(d, by)), o); });
}

void divide_view(View values, double divisor) {
  switch (values.dtype) {
    case DType::f32:
      return divide_elements<float>(static_cast<float*>(values.data), values.count, divisor);
    case DType::f64:
      return divide_elements<double>(static_cast<double*>(values.data), values.count, divisor);
    case DType::f16:
      return divide_elements<float>(static_cast<float16*>(values.data), values.count, divisor);
    case DType::bf16:
      return divide_elements<float>(static_cast<bfloat16*>(values.data), values.count, divisor);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(convert_views);
HWY_EXPORT(round_views);
HWY_EXPORT(add_views);
HWY_EXPORT(subtract_views);
HWY_EXPORT(keep_view);
HWY_EXPORT(divide_view);

void convert(ConstView from, View to, Into into, double factor) {
  if (from.empty()) return;
  if (from.dtype == to.dtype && into != Into::add && factor == 1.0) {
    std::memcpy(to.data, from.data, from.bytes());
  } else {
    HWY_DYNAMIC_DISPATCH(convert_views)(from, to, into, factor);
  }
}

bool round_to(ConstView from, View to) { return from.empty() || HWY_DYNAMIC_DISPATCH(round_views)(from, to); }

void add(ConstView a, ConstView b, View to) {
  if (!a.empty()) HWY_DYNAMIC_DISPATCH(add_views)(a, b, to);
}

void subtract(ConstView a, ConstView b, View to) {
  if (!a.empty()) HWY_DYNAMIC_DISPATCH(subtract_views)(a, b, to);
}

void keep(ConstView from, View to) {
  if (from.dtype == to.dtype) {
    convert(from, to, Into::overwrite, 1.0);
  } else if (!from.empty()) {
    HWY_DYNAMIC_DISPATCH(keep_view)(from, to);
  }
}

void divide(View values, double divisor) {
  if (!values.empty() && divisor != 1.0) HWY_DYNAMIC_DISPATCH(divide_view)(values, divisor);
}

}  // namespace terse::inline v0_1
#endif
