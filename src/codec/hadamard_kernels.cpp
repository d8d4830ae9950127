// SPDX-License-Identifier: Apache-2.0
#include "codec/hadamard_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "codec/arithmetic.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/hadamard_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

enum class Way : std::uint8_t { forward, inverse };

template <class A>
using BitsOf = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;

// Vectors that are worked on at a time: sums and differences of three steps are taken in registers, so that
// memory is gone through once for all three.
constexpr std::size_t kMostVectors = 8;

// Magnitudes as integers: what is not finite is the largest.
template <class D>
HWY_INLINE void note(D, hn::Vec<D> v, hn::Vec<hn::RebindToSigned<D>>& most) {
  most = hn::Max(most, hn::BitCast(hn::RebindToSigned<D>(), hn::Abs(v)));
}

template <class D>
HWY_INLINE hn::Vec<D> with_signs(D d, hn::Vec<D> v, const std::uint32_t* signs) {
  const hn::RebindToUnsigned<D> bits;
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::Xor(v, hn::BitCast(d, hn::LoadU(bits, signs)));
  } else {
    const hn::Rebind<std::uint32_t, D> words;
    return hn::Xor(v, hn::BitCast(d, hn::ShiftLeft<32>(hn::PromoteTo(bits, hn::LoadU(words, signs)))));
  }
}

#if HWY_TARGET != HWY_SCALAR  // which has one lane, and not these
// v with lanes `kApart` apart exchanged.
template <std::size_t kApart, class D>
HWY_INLINE hn::Vec<D> exchanged(D d, hn::Vec<D> v) {
  if constexpr (kApart == 1 && sizeof(hn::TFromD<D>) == 4) {
    return hn::Shuffle2301(v);
  } else if constexpr (kApart == 2 && sizeof(hn::TFromD<D>) == 4) {
    return hn::Shuffle1032(v);
  } else if constexpr (kApart == 1) {
    return hn::Shuffle01(v);
  } else {
    const hn::RebindToSigned<D> lanes;
    const auto partners = hn::Xor(hn::Iota(lanes, 0), hn::Set(lanes, kApart));
    return hn::TableLookupLanes(v, hn::IndicesFromVec(d, partners));
  }
}

// The steps within a vector, from `kApart` on: the lower lane of two gets their sum, the upper one the
// difference.
template <std::size_t kApart, class D>
HWY_INLINE hn::Vec<D> within(D d, hn::Vec<D> v) {
  if constexpr (kApart < hn::MaxLanes(D())) {
    if (kApart >= hn::Lanes(d)) return v;
    constexpr int kTop = static_cast<int>(8 * sizeof(hn::TFromD<D>)) - 1;
    const hn::RebindToUnsigned<D> bits;
    const auto upper = hn::And(hn::Iota(bits, 0), hn::Set(bits, kApart));
    const auto minus = hn::BitCast(d, hn::ShiftLeft<kTop - std::countr_zero(kApart)>(upper));
    const auto sums = hn::Add(exchanged<kApart>(d, v), hn::Xor(v, minus));
    return within<2 * kApart>(d, sums);
  } else {
    (void)d;
    return v;
  }
}
#else
template <std::size_t kApart, class D>
HWY_INLINE hn::Vec<D> within(D, hn::Vec<D> v) {
  return v;
}
#endif

template <class V>
HWY_INLINE void cross(V& a, V& b) {
  const V sum = hn::Add(a, b);
  b = hn::Sub(a, b);
  a = sum;
}

// Where vectors come from: as they are, or a block's own values, with their signs changed in the way forward
// and the steps within a vector done.
enum class From : std::uint8_t { between, values, signed_values };
// and where they go to.
enum class To : std::uint8_t { between, result, signed_result };

template <class A>
struct Pass {
  const A* from;
  A* to;
  const std::uint32_t* signs;
  std::size_t apart;  ///< of vectors, in elements
  A factor;
};

template <From kFrom, class D, class A>
HWY_INLINE hn::Vec<D> take(D d, const Pass<A>& pass, std::size_t at) {
  auto v = hn::LoadU(d, pass.from + at);
  if constexpr (kFrom == From::signed_values) v = with_signs(d, v, pass.signs + at);
  if constexpr (kFrom != From::between) v = within<1>(d, v);
  return v;
}

template <To kTo, class D, class A>
HWY_INLINE void give(D d, hn::Vec<D> v, const Pass<A>& pass, std::size_t at,
                     hn::Vec<hn::RebindToSigned<D>>& most) {
  if constexpr (kTo != To::between) {
    v = hn::Mul(v, hn::Set(d, pass.factor));
    note(d, v, most);
  }
  if constexpr (kTo == To::signed_result) v = with_signs(d, v, pass.signs + at);
  hn::StoreU(v, d, pass.to + at);
}

// The steps among kVectors vectors, `apart` elements from one to the next.
template <std::size_t kVectors, From kFrom, To kTo, class D, class A>
HWY_INLINE void among(D d, const Pass<A>& pass, std::size_t at, hn::Vec<hn::RebindToSigned<D>>& most) {
  const std::size_t h = pass.apart;
  auto v0 = take<kFrom>(d, pass, at);
  if constexpr (kVectors == 1) {
    give<kTo>(d, v0, pass, at, most);
  } else {
    auto v1 = take<kFrom>(d, pass, at + h);
    cross(v0, v1);
    if constexpr (kVectors == 2) {
      give<kTo>(d, v0, pass, at, most);
      give<kTo>(d, v1, pass, at + h, most);
    } else {
      auto v2 = take<kFrom>(d, pass, at + 2 * h);
      auto v3 = take<kFrom>(d, pass, at + 3 * h);
      cross(v2, v3);
      cross(v0, v2);
      cross(v1, v3);
      if constexpr (kVectors == 4) {
        give<kTo>(d, v0, pass, at, most);
        give<kTo>(d, v1, pass, at + h, most);
        give<kTo>(d, v2, pass, at + 2 * h, most);
        give<kTo>(d, v3, pass, at + 3 * h, most);
      } else {
        static_assert(kVectors == kMostVectors);
        auto v4 = take<kFrom>(d, pass, at + 4 * h);
        auto v5 = take<kFrom>(d, pass, at + 5 * h);
        auto v6 = take<kFrom>(d, pass, at + 6 * h);
        auto v7 = take<kFrom>(d, pass, at + 7 * h);
        cross(v4, v5);
        cross(v6, v7);
        cross(v4, v6);
        cross(v5, v7);
        cross(v0, v4);
        cross(v1, v5);
        cross(v2, v6);
        cross(v3, v7);
        give<kTo>(d, v0, pass, at, most);
        give<kTo>(d, v1, pass, at + h, most);
        give<kTo>(d, v2, pass, at + 2 * h, most);
        give<kTo>(d, v3, pass, at + 3 * h, most);
        give<kTo>(d, v4, pass, at + 4 * h, most);
        give<kTo>(d, v5, pass, at + 5 * h, most);
        give<kTo>(d, v6, pass, at + 6 * h, most);
        give<kTo>(d, v7, pass, at + 7 * h, most);
      }
    }
  }
}

// The largest magnitude's bits; 0 where it is not looked for yet.
template <std::size_t kVectors, From kFrom, To kTo, class A>
HWY_NOINLINE BitsOf<A> run_pass(const Pass<A>& pass, std::size_t n) {
  const Lanes64<A> d;
  const hn::RebindToSigned<decltype(d)> bits;
  const std::size_t lanes = hn::Lanes(d);
  auto most = hn::Zero(bits);
  for (std::size_t begin = 0; begin < n; begin += kVectors * pass.apart) {
    for (std::size_t i = 0; i < pass.apart; i += lanes) {
      among<kVectors, kFrom, kTo>(d, pass, begin + i, most);
    }
  }
  if constexpr (kTo == To::between) return 0;
  HWY_ALIGN hn::TFromD<decltype(bits)> each[64];
  hn::Store(most, bits, each);
  return static_cast<BitsOf<A>>(*std::max_element(each, each + lanes));
}

template <From kFrom, To kTo, class A>
BitsOf<A> run_pass(std::size_t vectors, const Pass<A>& pass, std::size_t n) {
  switch (vectors) {
    case 1:
      return run_pass<1, kFrom, kTo>(pass, n);
    case 2:
      return run_pass<2, kFrom, kTo>(pass, n);
    case 4:
      return run_pass<4, kFrom, kTo>(pass, n);
    default:
      return run_pass<kMostVectors, kFrom, kTo>(pass, n);
  }
}

// A block that is shorter than a vector.
template <Way kWay, class A>
BitsOf<A> transform_few(const A* from, A* to, const std::uint32_t* signs, std::size_t n, A factor) {
  const auto with_sign = [&](A v, std::size_t i) HWY_ATTR { return signs[i] != 0 ? -v : v; };
  A v[64];
  for (std::size_t i = 0; i < n; ++i) v[i] = kWay == Way::forward ? with_sign(from[i], i) : from[i];
  for (std::size_t apart = 1; apart < n; apart *= 2) {
    for (std::size_t i = 0; i < n; ++i) {
      if ((i & apart) != 0) continue;
      const A sum = v[i] + v[i + apart];
      v[i + apart] = v[i] - v[i + apart];
      v[i] = sum;
    }
  }
  BitsOf<A> most = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const A result = v[i] * factor;
    most = std::max(most, std::bit_cast<BitsOf<A>>(magnitude_of(result)));
    to[i] = kWay == Way::inverse ? with_sign(result, i) : result;
  }
  return most;
}

template <Way kWay, class A>
BitsOf<A> transform_block(const A* from, A* to, const std::uint32_t* signs, std::size_t n) {
  constexpr From kFrom = kWay == Way::forward ? From::signed_values : From::values;
  constexpr To kTo = kWay == Way::forward ? To::result : To::signed_result;
  const std::size_t lanes = hn::Lanes(Lanes64<A>());
  const A factor = static_cast<A>(1 / std::sqrt(static_cast<double>(n)));
  if (n < lanes) return transform_few<kWay>(from, to, signs, n, factor);
  Pass<A> pass{from, to, signs, lanes, factor};
  std::size_t vectors = std::min(kMostVectors, n / lanes);
  if (vectors * lanes == n) return run_pass<kFrom, kTo>(vectors, pass, n);
  run_pass<kFrom, To::between>(vectors, pass, n);
  pass.from = to;
  while (true) {
    pass.apart *= vectors;
    vectors = std::min(kMostVectors, n / pass.apart);
    if (vectors * pass.apart == n) return run_pass<From::between, kTo>(vectors, pass, n);
    run_pass<From::between, To::between>(vectors, pass, n);
  }
}

template <Way kWay, class A>
double transform_typed(const A* from, A* to, std::size_t count, HadamardSigns signs) {
  BitsOf<A> most = 0;
  for (std::size_t begin = 0; begin < count; begin += signs.size()) {
    const std::size_t end = std::min(count, begin + signs.size());
    for (std::size_t at = begin; at < end;) {
      const std::size_t n = std::bit_floor(end - at);
      most = std::max(most, transform_block<kWay>(from + at, to + at, signs.data() + (at - begin), n));
      at += n;
    }
  }
  return static_cast<double>(std::bit_cast<A>(most));
}

template <Way kWay>
double transform(ConstView from, View to, HadamardSigns signs) {
  return from.dtype == DType::f64 ? transform_typed<kWay>(static_cast<const double*>(from.data),
                                                          static_cast<double*>(to.data), from.count, signs)
                                  : transform_typed<kWay>(static_cast<const float*>(from.data),
                                                          static_cast<float*>(to.data), from.count, signs);
}

double transform_forward(ConstView from, View to, HadamardSigns signs) {
  return transform<Way::forward>(from, to, signs);
}

double transform_inverse(ConstView from, View to, HadamardSigns signs) {
  return transform<Way::inverse>(from, to, signs);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(transform_forward);
HWY_EXPORT(transform_inverse);

double hadamard_forward(ConstView from, View to, HadamardSigns signs) {
  return HWY_DYNAMIC_DISPATCH(transform_forward)(from, to, signs);
}

double hadamard_inverse(ConstView from, View to, HadamardSigns signs) {
  return HWY_DYNAMIC_DISPATCH(transform_inverse)(from, to, signs);
}

}  // namespace terse::inline v0_1
#endif
