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
template <bool kAll, class A, bool kFeedback>
HWY_INLINE A sum_of_large(const Summands<A, kFeedback>& v, std::size_t n, A least, std::size_t& count) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto bound = hn::Set(d, least);
  HWY_ALIGN A sums[kBlockGroup];
  std::size_t small = 0;
  const auto add = [&](auto sum, std::size_t at) HWY_ATTR {
    const auto size = hn::Abs(v.load(at));
    if constexpr (kAll) {
      return hn::Add(sum, size);
    } else {
      const auto below = hn::Lt(size, bound);
      small += hn::CountTrue(d, below);
      return hn::Add(sum, hn::IfThenZeroElse(below, size));
    }
  };
  if (lanes <= kBlockGroup / 4) {  // four sums at a time, which wait for themselves alone
    for (std::size_t i = 0; i < kBlockGroup; i += 4 * lanes) {
      auto sum0 = hn::Zero(d);
      auto sum1 = sum0;
      auto sum2 = sum0;
      auto sum3 = sum0;
      for (std::size_t at = i; at < n; at += kBlockGroup) {
        sum0 = add(sum0, at);
        sum1 = add(sum1, at + lanes);
        sum2 = add(sum2, at + 2 * lanes);
        sum3 = add(sum3, at + 3 * lanes);
      }
      hn::Store(sum0, d, sums + i);
      hn::Store(sum1, d, sums + i + lanes);
      hn::Store(sum2, d, sums + i + 2 * lanes);
      hn::Store(sum3, d, sums + i + 3 * lanes);
    }
  } else {
    for (std::size_t i = 0; i < kBlockGroup; i += lanes) {
      auto sum = hn::Zero(d);
      for (std::size_t at = i; at < n; at += kBlockGroup) sum = add(sum, at);
      hn::Store(sum, d, sums + i);
    }
  }
  count = n - small;
  return add_tree(sums);
}

template <class A>
struct Threshold {
  A scale = 0;
  A least = 0;    // |v| from this on is scale
  A inverse = 0;  // stochastic: |v| times this is scale's probability
};

template <class A, bool kFeedback>
HWY_INLINE Threshold<A> threshold_of(const Summands<A, kFeedback>& v, std::size_t n, std::size_t padded,
                                     const TernaryFormat& format) {
  Threshold<A> found;
  if (format.rounding == Rounding::stochastic) {
    found.scale = largest_of(v, padded);
    found.inverse = found.scale >= std::numeric_limits<A>::min() ? 1 / found.scale : 0;
    return found;
  }
  std::size_t count = 0;
  const A mean = sum_of_large<true>(v, padded, A{0}, count) / static_cast<A>(n);
  found.least = static_cast<A>(format.threshold) * mean;
  const A sum = sum_of_large<false>(v, padded, found.least, count);
  found.scale = sum / static_cast<A>(count);  // one is the mean or more; with a NaN, so is the scale
  return found;
}

template <bool kDraws, class A, bool kFeedback>
void encode_codes(const Summands<A, kFeedback>& v, std::size_t n, const Threshold<A>& found,
                  std::uint32_t seed, const RandomKey& key, std::uint8_t* out) {
  const Lanes64<A> d;
  const auto scale = hn::Set(d, found.scale);
  const auto least = hn::Set(d, found.least);
  const auto inverse = hn::Set(d, found.inverse);
  const auto one = hn::Set(d, A{1});
  // A group is packed after the next one has been encoded: what was just stored in other parts than it is
  // loaded in takes its time.
  HWY_ALIGN std::uint8_t codes[2][kTernaryRoom] = {};
  HWY_ALIGN std::uint16_t halves[kRandomGroup];
  std::size_t turn = 0;
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup, turn ^= 1) {
    const std::uint16_t* drawn = halves + begin % kRandomGroup;
    if (kDraws && drawn == halves) {
      random_halves(seed, key.at(begin), std::min(kRandomGroup, n - begin), halves);
    }
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      const auto x = v.load(begin + i);
      const auto size = hn::Abs(x);
      const auto large =
          kDraws ? hn::Lt(random_units(d, drawn + i), hn::Mul(size, inverse)) : hn::Ge(size, least);
      const auto q = hn::IfThenElseZero(large, hn::CopySignToAbs(one, x));
      v.leave(hn::Sub(x, hn::Mul(q, scale)), begin + i);
      v.ask_for(begin + i + n);
      store_codes(d, hn::Add(q, one), codes[turn] + i);
    }
    if (begin == 0) continue;
    pack_ternary(codes[turn ^ 1], out);
    out += kTernaryBytes;
  }
  pack_ternary(codes[turn ^ 1], out);
}

template <class A, bool kFeedback>
std::size_t encode_typed(const Summands<A, kFeedback>& v, std::size_t n, std::size_t padded, DType as,
                         const TernaryFormat& format, const RandomKey& key, std::byte* out) {
  for (std::size_t begin = 0; begin < padded; begin += format.block) {
    const std::size_t own = std::min(format.block, padded - begin);
    const Threshold<A> found = threshold_of(v.from(begin), std::min(own, n - begin), own, format);
    if (!is_finite(rounded_scale(found.scale, as))) return begin;
    std::memcpy(out, &found.scale, sizeof(A));
    out += sizeof(A);
    auto* codes = reinterpret_cast<std::uint8_t*>(out);
    const RandomKey here = key.at(begin);
    if (format.rounding == Rounding::stochastic) {
      encode_codes<true>(v.from(begin), own, found, format.seed, here, codes);
    } else {
      encode_codes<false>(v.from(begin), own, found, format.seed, here, codes);
    }
    out += own / kBlockGroup * kTernaryBytes;
  }
  return padded;
}

std::size_t encode_blocks(ConstView values, std::size_t n, void* residual, DType as,
                          const TernaryFormat& format, const RandomKey& key, std::byte* out) {
  return with_summands(values, residual,
                       [&](auto v) { return encode_typed(v, n, values.count, as, format, key, out); });
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
    if (!is_block_scale(scale)) return false;
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

std::size_t ternary_encode(ConstView values, std::size_t n, void* residual, DType as,
                           const TernaryFormat& format, const RandomKey& key, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_blocks)(values, n, residual, as, format, key, out);
}

bool ternary_decode(const std::byte* in, View out, const TernaryFormat& format, Into into, double factor) {
  return HWY_DYNAMIC_DISPATCH(decode_blocks)(in, out, format, into, factor);
}

}  // namespace terse::inline v0_1
#endif
