// SPDX-License-Identifier: Apache-2.0
#include "codec/ternary_kernels.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "codec/arithmetic.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/ternary_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/codes-inl.hpp"
#include "codec/philox-inl.hpp"
#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// Adds as onebit's sums are added: element i to running sum i mod 64, then the sums as a tree. Of |v| where
// that is not below `least`, whose number is counted: so NaN is among them.
template <class A>
HWY_INLINE A sum_of_large(const A* v, std::size_t n, A least, std::size_t& count) {
  const Lanes64<A> d;
  const auto bound = hn::Set(d, least);
  HWY_ALIGN A sums[kBlockGroup] = {};
  std::size_t small = 0;
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      const auto size = hn::Abs(hn::LoadU(d, v + begin + i));
      const auto below = hn::Lt(size, bound);
      small += hn::CountTrue(d, below);
      hn::Store(hn::Add(hn::Load(d, sums + i), hn::IfThenZeroElse(below, size)), d, sums + i);
    }
  }
  count = n - small;
  return add_tree(sums);
}

// The largest |v|; NaN where one is.
template <class A>
HWY_INLINE A largest_of(const A* v, std::size_t n) {
  const Lanes64<A> d;
  auto most = hn::Zero(d);
  auto bad = hn::Zero(d);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, v + i);
    most = hn::Max(most, hn::Abs(x));
    bad = hn::Or(bad, hn::Mul(x, hn::Zero(d)));
  }
  if (!hn::AllTrue(d, hn::Eq(bad, hn::Zero(d)))) return std::numeric_limits<A>::quiet_NaN();
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

template <class A>
struct Threshold {
  A scale = 0;
  A least = 0;    // |v| from this on is scale
  A inverse = 0;  // stochastic: |v| times this is scale's probability
};

template <class A>
HWY_INLINE Threshold<A> threshold_of(const A* v, std::size_t n, std::size_t padded,
                                     const TernaryFormat& format) {
  Threshold<A> found;
  if (format.rounding == Rounding::stochastic) {
    found.scale = largest_of(v, padded);
    found.inverse = found.scale >= std::numeric_limits<A>::min() ? 1 / found.scale : 0;
    return found;
  }
  std::size_t count = 0;
  const A mean = sum_of_large(v, padded, A{0}, count) / static_cast<A>(n);
  found.least = static_cast<A>(format.threshold) * mean;
  const A sum = sum_of_large(v, padded, found.least, count);
  found.scale = sum / static_cast<A>(count);  // one is the mean or more; with a NaN, so is the scale
  return found;
}

template <class A, bool kLeaves>
void encode_codes(const A* v, A* left, std::size_t n, const Threshold<A>& found, const TernaryFormat& format,
                  const Occasion& occasion, std::uint8_t* out) {
  const Lanes64<A> d;
  const auto scale = hn::Set(d, found.scale);
  const auto least = hn::Set(d, found.least);
  const auto inverse = hn::Set(d, found.inverse);
  const auto one = hn::Set(d, A{1});
  const bool draws = format.rounding == Rounding::stochastic;
  HWY_ALIGN std::uint8_t codes[kTernaryRoom] = {};
  HWY_ALIGN std::uint32_t words[kRandomGroup];
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    if (draws) random_words(format.seed, occasion.at(begin), words);
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      const auto x = hn::LoadU(d, v + begin + i);
      const auto size = hn::Abs(x);
      const auto large =
          draws ? hn::Lt(random_units(d, words + i), hn::Mul(size, inverse)) : hn::Ge(size, least);
      const auto q = hn::IfThenElseZero(large, hn::CopySignToAbs(one, x));
      if constexpr (kLeaves) hn::StoreU(hn::Sub(x, hn::Mul(q, scale)), d, left + begin + i);
      store_codes(d, hn::Add(q, one), codes + i);
    }
    pack_ternary(codes, out);
    out += kTernaryBytes;
  }
}

template <class A>
std::size_t encode_typed(const A* v, std::size_t n, std::size_t padded, A* left, DType as,
                         const TernaryFormat& format, const Occasion& occasion, std::byte* out) {
  for (std::size_t begin = 0; begin < padded; begin += format.block) {
    const std::size_t own = std::min(format.block, padded - begin);
    const Threshold<A> found = threshold_of(v + begin, std::min(own, n - begin), own, format);
    if (!is_finite(onebit_rounded_scale(found.scale, as))) return begin;
    std::memcpy(out, &found.scale, sizeof(A));
    out += sizeof(A);
    auto* codes = reinterpret_cast<std::uint8_t*>(out);
    if (left == nullptr) {
      encode_codes<A, false>(v + begin, nullptr, own, found, format, occasion.at(begin), codes);
    } else {
      encode_codes<A, true>(v + begin, left + begin, own, found, format, occasion.at(begin), codes);
    }
    out += own / kBlockGroup * kTernaryBytes;
  }
  return padded;
}

std::size_t encode_blocks(ConstView values, std::size_t n, void* left, DType as, const TernaryFormat& format,
                          const Occasion& occasion, std::byte* out) {
  if (values.dtype == DType::f64) {
    return encode_typed(static_cast<const double*>(values.data), n, values.count, static_cast<double*>(left),
                        as, format, occasion, out);
  }
  return encode_typed(static_cast<const float*>(values.data), n, values.count, static_cast<float*>(left), as,
                      format, occasion, out);
}

template <class A>
bool decode_typed(const std::byte* in, A* out, std::size_t count, const TernaryFormat& format, Into into,
                  double factor) {
  const Lanes64<A> d;
  HWY_ALIGN std::uint8_t codes[kTernaryRoom] = {};
  for (std::size_t begin = 0; begin < count; begin += format.block) {
    const std::size_t n = std::min(format.block, count - begin);
    A scale = 0;
    std::memcpy(&scale, in, sizeof(A));
    if (!is_onebit_scale(scale)) return false;
    in += sizeof(A);
    const auto by = hn::Set(d, scale * static_cast<A>(factor));
    for (std::size_t group = 0; group < n; group += kBlockGroup) {
      if (!unpack_ternary(reinterpret_cast<const std::uint8_t*>(in), codes)) return false;
      in += kTernaryBytes;
      for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
        A* to = out + begin + group + i;
        auto v = hn::Mul(hn::Sub(load_codes(d, codes + i), hn::Set(d, A{1})), by);
        if (into == Into::add) v = hn::Add(hn::LoadU(d, to), v);
        hn::StoreU(v, d, to);
      }
    }
  }
  return true;
}

bool decode_blocks(const std::byte* in, View out, const TernaryFormat& format, Into into, double factor) {
  if (out.dtype == DType::f64) {
    return decode_typed(in, static_cast<double*>(out.data), out.count, format, into, factor);
  }
  return decode_typed(in, static_cast<float*>(out.data), out.count, format, into, factor);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(encode_blocks);
HWY_EXPORT(decode_blocks);

std::size_t ternary_encode(ConstView values, std::size_t n, void* left, DType as, const TernaryFormat& format,
                           const Occasion& occasion, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_blocks)(values, n, left, as, format, occasion, out);
}

bool ternary_decode(const std::byte* in, View out, const TernaryFormat& format, Into into, double factor) {
  return HWY_DYNAMIC_DISPATCH(decode_blocks)(in, out, format, into, factor);
}

}  // namespace terse::inline v0_1
#endif
