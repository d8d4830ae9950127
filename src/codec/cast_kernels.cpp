// SPDX-License-Identifier: Apache-2.0
#include "codec/cast_kernels.hpp"

#include <algorithm>
#include <cstring>

#include "codec/elements.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/cast_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/simd-inl.hpp"

#ifndef TERSE_CAST_SHARED
#define TERSE_CAST_SHARED
namespace terse::inline v0_1 {
namespace {

// An 8-bit floating-point number; it has all codes of one sign up to kMost.
template <int kFractionBits, int kExponentBias, std::uint32_t kMostCode>
struct Float8 {
  static constexpr int kShift = 23 - kFractionBits;
  static constexpr int kBias = kExponentBias;
  static constexpr std::uint32_t kMost = kMostCode;
  std::uint8_t bits;
};
using E4M3 = Float8<3, 7, 0x7e>;
using E5M2 = Float8<2, 15, 0x7b>;

template <class H>
constexpr bool kIsFloat8 = sizeof(H) == 1;

constexpr float power_of_two(int exponent) {
  float power = 1;
  for (; exponent > 0; --exponent) power *= 2;
  for (; exponent < 0; ++exponent) power /= 2;
  return power;
}

constexpr std::size_t kRun = 1024;  // elements that are looked through before residuals change

}  // namespace
}  // namespace terse::inline v0_1
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

template <class D, class H>
HWY_INLINE hn::Vec<D> load_narrow(D d, const H* p) {
  if constexpr (kIsFloat8<H>) {
    const hn::RebindToUnsigned<D> u32;
    const hn::Rebind<std::uint8_t, D> u8;
    const auto bits = hn::PromoteTo(u32, hn::LoadU(u8, reinterpret_cast<const std::uint8_t*>(p)));
    const auto sign = hn::ShiftLeft<24>(hn::And(bits, hn::Set(u32, 0x80u)));
    const auto magnitude = hn::ShiftLeft<H::kShift>(hn::And(bits, hn::Set(u32, 0x7fu)));
    // the exponent's bias is too small; a product mends it and normalises subnormals
    const auto value = hn::Mul(hn::BitCast(d, magnitude), hn::Set(d, power_of_two(127 - H::kBias)));
    return hn::BitCast(d, hn::Or(sign, hn::BitCast(u32, value)));
  } else {
    return load_as(d, p);
  }
}

// Stores v rounded to H, and marks lanes in `bad` (not zero) where H does not have that.
template <class D, class H, class V = hn::Vec<D>>
HWY_INLINE void store_narrow(D d, V v, H* p, V& bad) {
  if constexpr (kIsFloat8<H>) {
    constexpr int kShift = H::kShift;
    const hn::RebindToUnsigned<D> u32;
    const hn::RebindToSigned<D> i32;
    const hn::Rebind<std::uint8_t, D> u8;
    const auto bits = hn::BitCast(u32, v);
    const auto sign = hn::ShiftRight<24>(hn::And(bits, hn::Set(u32, 0x80000000u)));
    const auto magnitude = hn::And(bits, hn::Set(u32, 0x7fffffffu));
    const auto odd = hn::And(hn::ShiftRight<kShift>(magnitude), hn::Set(u32, 1u));
    const auto based = hn::Sub(magnitude, hn::Set(u32, static_cast<std::uint32_t>(127 - H::kBias) << 23));
    const auto normal =
        hn::ShiftRight<kShift>(hn::Add(based, hn::Add(odd, hn::Set(u32, (1u << (kShift - 1)) - 1))));
    // beside this number, the last place is that of the subnormal ones
    const auto beside = hn::Set(d, power_of_two(1 - H::kBias + kShift));
    const auto subnormal =
        hn::Sub(hn::BitCast(u32, hn::Add(hn::BitCast(d, magnitude), beside)), hn::BitCast(u32, beside));
    const auto least =
        hn::Set(i32, static_cast<std::int32_t>((128 - H::kBias) << 23));  // normal from here on
    const auto is_small = hn::RebindMask(u32, hn::Lt(hn::BitCast(i32, magnitude), least));
    const auto code = hn::IfThenElse(is_small, subnormal, normal);
    const auto beyond = hn::Gt(hn::BitCast(i32, code), hn::Set(i32, static_cast<std::int32_t>(H::kMost)));
    bad = hn::Or(bad, hn::IfThenElseZero(hn::RebindMask(d, beyond), hn::Set(d, 1.0f)));
    const auto kept = hn::And(hn::Or(code, sign), hn::Set(u32, 0xffu));
    hn::StoreU(hn::DemoteTo(u8, hn::BitCast(i32, kept)), u8, reinterpret_cast<std::uint8_t*>(p));
  } else {
    store_as(d, v, p);
    bad = hn::Or(bad, hn::Mul(load_as(d, p), hn::Zero(d)));  // zero unless that is NaN
  }
}

template <class H, class T, class E>
std::size_t encode_typed(const T* x, E* e, H* to, std::size_t count) {
  const Lanes64<float> tag;
  for (std::size_t begin = 0; begin < count; begin += kRun) {
    const std::size_t n = std::min(kRun, count - begin);
    const T* xs = x + begin;
    H* out = to + begin;
    auto bad = hn::Zero(tag);
    const auto store = [&](auto d, H* o, auto v) HWY_ATTR { store_narrow(d, v, o, bad); };
    if (e == nullptr) {
      for_vectors<float>(
          n, out, [&](auto d, H* o, const T* p) HWY_ATTR { store(d, o, load_as(d, p)); }, xs);
    } else {
      const E* es = e + begin;
      for_vectors<float>(
          n, out,
          [&](auto d, H* o, const T* p, const E* q)
              HWY_ATTR { store(d, o, hn::Add(load_as(d, p), load_as(d, q))); },
          xs, es);
    }
    if (!hn::AllTrue(tag, hn::Eq(bad, hn::Zero(tag)))) return begin;
    if (e == nullptr) continue;
    for_vectors<float>(
        n, e + begin,
        [&](auto d, E* q, const T* p, const H* h) HWY_ATTR {
          const auto v = hn::Add(load_as(d, p), load_as(d, q));
          store_residual(d, hn::Sub(v, load_narrow(d, h)), q);
        },
        xs, static_cast<const H*>(out));
  }
  return count;
}

template <class H, class T>
std::size_t encode_with_residual(ConstView values, View residual, H* out) {
  const auto* x = static_cast<const T*>(values.data);
  if (residual.dtype == DType::bf16) {
    return encode_typed(x, static_cast<bfloat16*>(residual.data), out, values.count);
  }
  return encode_typed(x, static_cast<float*>(residual.data), out, values.count);
}

template <class H>
std::size_t encode_to(ConstView values, View residual, H* out) {
  switch (values.dtype) {
    case DType::f16:
      return encode_with_residual<H, float16>(values, residual, out);
    case DType::bf16:
      return encode_with_residual<H, bfloat16>(values, residual, out);
    default:
      return encode_with_residual<H, float>(values, residual, out);
  }
}

std::size_t encode_views(ConstView values, View residual, CastType to, std::byte* out) {
  switch (to) {
    case CastType::f16:
      return encode_with_residual<float16, float>(values, residual, reinterpret_cast<float16*>(out));
    case CastType::bf16:
      return encode_with_residual<bfloat16, float>(values, residual, reinterpret_cast<bfloat16*>(out));
    case CastType::f8e4m3:
      return encode_to(values, residual, reinterpret_cast<E4M3*>(out));
    case CastType::f8e5m2:
      break;
  }
  return encode_to(values, residual, reinterpret_cast<E5M2*>(out));
}

template <class H, class T>
void decode_typed(const H* in, T* out, std::size_t count, Into into, double factor) {
  const auto by = static_cast<float>(factor);
  for_vectors<float>(
      count, out,
      [&](auto d, T* o, const H* h) HWY_ATTR {
        auto v = hn::Mul(load_narrow(d, h), hn::Set(d, by));
        if (into == Into::add) v = hn::Add(load_as(d, o), v);
        store_as(d, v, o);
      },
      in);
}

template <class H>
bool decode_from(const H* in, View out, Into into, double factor) {
  std::uint32_t most = 0;
  for (std::size_t i = 0; i < out.count; ++i) most = std::max<std::uint32_t>(most, in[i].bits & 0x7fu);
  if (most > H::kMost) return false;
  switch (out.dtype) {
    case DType::f16:
      decode_typed(in, static_cast<float16*>(out.data), out.count, into, factor);
      break;
    case DType::bf16:
      decode_typed(in, static_cast<bfloat16*>(out.data), out.count, into, factor);
      break;
    default:
      decode_typed(in, static_cast<float*>(out.data), out.count, into, factor);
  }
  return true;
}

bool decode_views(const std::byte* in, CastType from, View out, Into into, double factor) {
  return from == CastType::f8e4m3 ? decode_from(reinterpret_cast<const E4M3*>(in), out, into, factor)
                                  : decode_from(reinterpret_cast<const E5M2*>(in), out, into, factor);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(encode_views);
HWY_EXPORT(decode_views);

std::size_t cast_encode(ConstView values, View residual, CastType to, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_views)(values, residual, to, out);
}

bool cast_decode(const std::byte* in, CastType from, View out, Into into, double factor) {
  if (size_of(from) == 1) return HWY_DYNAMIC_DISPATCH(decode_views)(in, from, out, into, factor);
  convert({in, out.count, from == CastType::f16 ? DType::f16 : DType::bf16}, out, into, factor);
  return true;
}

}  // namespace terse::inline v0_1
#endif
