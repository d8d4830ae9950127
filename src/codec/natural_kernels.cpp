// SPDX-License-Identifier: Apache-2.0
#include "codec/natural_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "codec/arithmetic.hpp"
#include "codec/block_codec.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/natural_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/philox-inl.hpp"
#include "codec/simd-inl.hpp"

#ifndef TERSE_NATURAL_SHARED
#define TERSE_NATURAL_SHARED
namespace terse::inline v0_1 {
namespace {

template <class A>
using BitsOf = std::conditional_t<sizeof(A) == 8, std::uint64_t, std::uint32_t>;
template <class A>
constexpr int kFraction = sizeof(A) == 8 ? 52 : 23;
constexpr std::uint32_t kSpan = 127;  // codes of one sign, beside 0's

// The exponent's field of the largest power of two that a tensor of this type holds.
std::uint32_t largest_field(DType as) {
  switch (as) {
    case DType::f64:
      return 2046;
    case DType::f16:
      return 127 + 15;
    default:
      return 254;
  }
}

}  // namespace
}  // namespace terse::inline v0_1
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// The largest magnitude's bits: that of a NaN is beyond all others'.
template <class A, bool kFeedback>
HWY_INLINE BitsOf<A> largest_bits(const Summands<A, kFeedback>& v, std::size_t n) {
  BitsOf<A> most = 0;
  if constexpr (sizeof(A) == 4) {
    const hn::CappedTag<std::int32_t, 64> d;
    auto lanes = hn::Zero(d);
    for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
      const auto bits = hn::BitCast(d, v.load(i));
      lanes = hn::Max(lanes, hn::And(bits, hn::Set(d, 0x7fffffff)));
    }
    most = static_cast<std::uint32_t>(hn::GetLane(hn::MaxOfLanes(d, lanes)));
  } else {
    for (std::size_t i = 0; i < n; ++i) {
      most = std::max(most, std::bit_cast<BitsOf<A>>(v.value(i)) & (~BitsOf<A>{0} >> 1));
    }
  }
  return most;
}

// Codes and what is left out, of a group whose powers of two begin behind field `base`. A random number is
// added to the fraction: where that carries, the exponent is the next one.
template <bool kFeedback>
HWY_INLINE void encode_group(const Summands<float, kFeedback>& v, std::size_t ahead, std::int32_t base,
                             const std::uint16_t* drawn, std::uint8_t* codes) {
  const hn::CappedTag<float, 64> d;
  const hn::RebindToUnsigned<decltype(d)> u32;
  const hn::RebindToSigned<decltype(d)> i32;
  const hn::Rebind<std::uint8_t, decltype(d)> u8;
  const hn::Rebind<std::uint16_t, decltype(d)> u16;
  for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
    const auto x = v.load(i);
    const auto bits = hn::BitCast(u32, x);
    const auto sign = hn::And(bits, hn::Set(u32, 0x80000000u));
    const auto magnitude = hn::And(bits, hn::Set(u32, 0x7fffffffu));
    const auto half = hn::PromoteTo(u32, hn::LoadU(u16, drawn + i));
    const auto random =
        hn::Or(hn::ShiftLeft<7>(half), hn::Set(u32, 1u << 6));  // the middle of what it stands for
    const auto field = hn::ShiftRight<23>(hn::Add(magnitude, random));
    const auto code = hn::Sub(hn::BitCast(i32, field), hn::Set(i32, base));
    const auto kept = hn::And(hn::Gt(code, hn::Zero(i32)), hn::Gt(hn::BitCast(i32, field), hn::Zero(i32)));
    const auto any = hn::IfThenElseZero(kept, hn::Or(code, hn::BitCast(i32, hn::ShiftRight<24>(sign))));
    hn::StoreU(hn::DemoteTo(u8, any), u8, codes + i);
    const auto value = hn::BitCast(d, hn::Or(sign, hn::ShiftLeft<23>(field)));
    v.leave(hn::Sub(x, hn::IfThenElseZero(hn::RebindMask(d, kept), value)), i);
    v.ask_for(i + ahead);
  }
}

template <bool kFeedback>
HWY_INLINE void encode_group(const Summands<double, kFeedback>& v, std::size_t ahead, std::int32_t base,
                             const std::uint16_t* drawn, std::uint8_t* codes) {
  for (std::size_t i = 0; i < kBlockGroup; ++i) {
    const double x = v.value(i);
    const auto bits = std::bit_cast<std::uint64_t>(x);
    const std::uint64_t sign = bits >> 63;
    const std::uint64_t magnitude = bits & (~std::uint64_t{0} >> 1);
    const std::uint64_t field = (magnitude + (std::uint64_t{drawn[i]} << 36 | std::uint64_t{1} << 35)) >> 52;
    const auto code = static_cast<std::int32_t>(field) - base;
    const bool kept = code > 0 && field > 0;
    codes[i] =
        static_cast<std::uint8_t>(kept ? static_cast<unsigned>(code) | static_cast<unsigned>(sign) << 7 : 0u);
    v.ask_for(i + ahead);
    if constexpr (kFeedback) v.e[i] = x - (kept ? std::bit_cast<double>(sign << 63 | field << 52) : 0.0);
  }
}

template <class A, bool kFeedback>
std::size_t encode_typed(const Summands<A, kFeedback>& v, std::size_t count, std::size_t block, DType as,
                         std::uint32_t seed, const RandomKey& key, std::byte* out) {
  HWY_ALIGN std::uint16_t halves[kRandomGroup];
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = std::min(block, count - begin);
    const auto top =
        static_cast<std::uint32_t>((largest_bits(v.from(begin), n) >> kFraction<A>)+1);  // rounded up
    if (top > largest_field(as)) return begin;
    const auto stored = static_cast<std::uint16_t>(top);
    std::memcpy(out, &stored, sizeof stored);
    out += sizeof stored;
    for (std::size_t i = 0; i < n; i += kBlockGroup) {
      const std::uint16_t* drawn = halves + i % kRandomGroup;
      if (drawn == halves) {
        random_halves(seed, key.at(begin + i), std::min(kRandomGroup, n - i), halves);
      }
      encode_group(v.from(begin + i), count, static_cast<std::int32_t>(top - kSpan), drawn,
                   reinterpret_cast<std::uint8_t*>(out));
      out += kBlockGroup;
    }
  }
  return count;
}

std::size_t encode_blocks(ConstView values, void* residual, std::size_t block, DType as, std::uint32_t seed,
                          const RandomKey& key, std::byte* out) {
  return with_summands(values, residual,
                       [&](auto v) { return encode_typed(v, values.count, block, as, seed, key, out); });
}

template <class A>
bool decode_typed(const std::byte* in, std::size_t block, DType as, A* out, std::size_t count, Into into,
                  double factor) {
  const Lanes64<A> d;
  const auto by = hn::Set(d, static_cast<A>(factor));
  HWY_ALIGN A values[256];  // of each code
  std::uint32_t made_for = 0;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = std::min(block, count - begin);
    std::uint16_t top = 0;
    std::memcpy(&top, in, sizeof top);
    in += sizeof top;
    if (top == 0 || top > largest_field(as)) return false;
    if (top != made_for) {
      for (std::uint32_t code = 0; code < 256; ++code) {
        const auto field = static_cast<std::int32_t>(top + (code & kSpan)) - static_cast<std::int32_t>(kSpan);
        const bool zero = (code & kSpan) == 0 || field <= 0;
        const BitsOf<A> bits = zero ? 0 : static_cast<BitsOf<A>>(field) << kFraction<A>;
        values[code] = std::bit_cast<A>(bits | static_cast<BitsOf<A>>(code >> 7) << (8 * sizeof(A) - 1));
      }
      made_for = top;
    }
    HWY_ALIGN A group[kBlockGroup];
    for (std::size_t i = begin; i < begin + n; i += kBlockGroup) {
      for (std::size_t k = 0; k < kBlockGroup; ++k) group[k] = values[std::to_integer<std::size_t>(in[k])];
      in += kBlockGroup;
      for (std::size_t k = 0; k < kBlockGroup; k += hn::Lanes(d)) {
        auto v = hn::Mul(hn::Load(d, group + k), by);
        if (into == Into::add) v = hn::Add(hn::LoadU(d, out + i + k), v);
        hn::StoreU(v, d, out + i + k);
      }
    }
  }
  return true;
}

bool decode_blocks(const std::byte* in, std::size_t block, DType as, View out, Into into, double factor) {
  if (out.dtype == DType::f64) {
    return decode_typed(in, block, as, static_cast<double*>(out.data), out.count, into, factor);
  }
  return decode_typed(in, block, as, static_cast<float*>(out.data), out.count, into, factor);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(encode_blocks);
HWY_EXPORT(decode_blocks);

std::size_t natural_encode(ConstView values, void* residual, std::size_t block, DType as, std::uint32_t seed,
                           const RandomKey& key, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_blocks)(values, residual, block, as, seed, key, out);
}

bool natural_decode(const std::byte* in, std::size_t block, DType as, View out, Into into, double factor) {
  return HWY_DYNAMIC_DISPATCH(decode_blocks)(in, block, as, out, into, factor);
}

}  // namespace terse::inline v0_1
#endif
