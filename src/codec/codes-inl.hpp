// SPDX-License-Identifier: Apache-2.0
// Included once per SIMD target by Highway's foreach_target, hence the guard that toggles.

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(TERSE_CODEC_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TERSE_CODEC_CODES_INL
#undef TERSE_CODEC_CODES_INL
#else
#define TERSE_CODEC_CODES_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// Lanes that are whole numbers of a byte, signed or not, as bytes.
template <class D, class Byte>
HWY_INLINE void store_codes(D, hwy::HWY_NAMESPACE::Vec<D> v, Byte* p) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<std::int32_t, D> i32;
  const hn::Rebind<Byte, D> bytes;
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(i32, v)), bytes, p);
  } else {
    hn::StoreU(hn::DemoteTo(bytes, hn::DemoteTo(i32, v)), bytes, p);
  }
}

template <class D, class Byte>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> load_codes(D d, const Byte* p) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<std::int32_t, D> i32;
  const hn::Rebind<Byte, D> bytes;
  const auto codes = hn::PromoteTo(i32, hn::LoadU(bytes, p));
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::ConvertTo(d, codes);
  } else {
    return hn::PromoteTo(d, codes);
  }
}

// 64 codes of 8, 6, 4 or 2 bits, a byte each, from and to 8 * bits bytes. Byte k of those has codes k, n + k,
// ... from its lowest bits on, where n is 64, 32 and 16 for 8, 4 and 2 bits. With 6 bits, byte k of 48 has
// code k; above it, byte k of the first, second and third 16 have bits 0 and 1, 2 and 3, 4 and 5 of code 48 +
// k.

#if HWY_TARGET == HWY_SCALAR
using CodeTag = hwy::HWY_NAMESPACE::CappedTag<std::uint8_t, 1>;
template <int kBits, class V>
HWY_INLINE V codes_up(V v) {
  return hwy::HWY_NAMESPACE::ShiftLeft<kBits>(v);
}
template <int kBits, class V>
HWY_INLINE V codes_down(V v) {
  return hwy::HWY_NAMESPACE::ShiftRight<kBits>(v);
}
#else
using CodeTag = hwy::HWY_NAMESPACE::CappedTag<std::uint8_t, 16>;
template <int kBits, class V>
HWY_INLINE V codes_up(V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  const hn::RepartitionToWide<CodeTag> pairs;
  return hn::And(hn::BitCast(d, hn::ShiftLeft<kBits>(hn::BitCast(pairs, v))),
                 hn::Set(d, static_cast<std::uint8_t>(0xff << kBits)));
}
template <int kBits, class V>
HWY_INLINE V codes_down(V v) {
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  const hn::RepartitionToWide<CodeTag> pairs;
  return hn::And(hn::BitCast(d, hn::ShiftRight<kBits>(hn::BitCast(pairs, v))),
                 hn::Set(d, static_cast<std::uint8_t>(0xff >> kBits)));
}
#endif

template <unsigned kBits>
HWY_INLINE void pack_group(const std::uint8_t* HWY_RESTRICT codes, std::uint8_t* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  if constexpr (kBits == 8) {
    std::memcpy(out, codes, 64);
  } else if constexpr (kBits == 4) {
    for (std::size_t k = 0; k < 32; k += hn::Lanes(d)) {
      hn::StoreU(hn::Or(hn::LoadU(d, codes + k), codes_up<4>(hn::LoadU(d, codes + 32 + k))), d, out + k);
    }
  } else {
    for (std::size_t k = 0; k < 16; k += hn::Lanes(d)) {
      const auto a = hn::LoadU(d, codes + k);
      const auto b = hn::LoadU(d, codes + 16 + k);
      const auto c = hn::LoadU(d, codes + 32 + k);
      const auto last = hn::LoadU(d, codes + 48 + k);
      if constexpr (kBits == 6) {
        hn::StoreU(hn::Or(a, codes_up<6>(last)), d, out + k);
        hn::StoreU(hn::Or(b, codes_up<6>(codes_down<2>(last))), d, out + 16 + k);
        hn::StoreU(hn::Or(c, codes_up<6>(codes_down<4>(last))), d, out + 32 + k);
      } else {
        hn::StoreU(hn::Or(hn::Or(a, codes_up<2>(b)), hn::Or(codes_up<4>(c), codes_up<6>(last))), d, out + k);
      }
    }
  }
}

template <unsigned kBits>
HWY_INLINE void unpack_group(const std::uint8_t* HWY_RESTRICT in, std::uint8_t* HWY_RESTRICT codes) {
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  if constexpr (kBits == 8) {
    std::memcpy(codes, in, 64);
  } else if constexpr (kBits == 4) {
    for (std::size_t k = 0; k < 32; k += hn::Lanes(d)) {
      const auto both = hn::LoadU(d, in + k);
      hn::StoreU(hn::And(both, hn::Set(d, std::uint8_t{15})), d, codes + k);
      hn::StoreU(codes_down<4>(both), d, codes + 32 + k);
    }
  } else {
    for (std::size_t k = 0; k < 16; k += hn::Lanes(d)) {
      const auto a = hn::LoadU(d, in + k);
      if constexpr (kBits == 6) {
        const auto b = hn::LoadU(d, in + 16 + k);
        const auto c = hn::LoadU(d, in + 32 + k);
        const auto low = hn::Set(d, std::uint8_t{63});
        hn::StoreU(hn::And(a, low), d, codes + k);
        hn::StoreU(hn::And(b, low), d, codes + 16 + k);
        hn::StoreU(hn::And(c, low), d, codes + 32 + k);
        hn::StoreU(
            hn::Or(codes_down<6>(a), hn::Or(codes_up<2>(codes_down<6>(b)), codes_up<4>(codes_down<6>(c)))), d,
            codes + 48 + k);
      } else {
        const auto low = hn::Set(d, std::uint8_t{3});
        hn::StoreU(hn::And(a, low), d, codes + k);
        hn::StoreU(hn::And(codes_down<2>(a), low), d, codes + 16 + k);
        hn::StoreU(hn::And(codes_down<4>(a), low), d, codes + 32 + k);
        hn::StoreU(codes_down<6>(a), d, codes + 48 + k);
      }
    }
  }
}

// 64 codes from 0 to 2 as five digits to the base 3 in each of 13 bytes: byte k has codes k, 13 + k, ... 52 +
// k, the first one the lowest digit. There is no code 64; `codes` has room for 80, zeros behind the 64th.
inline constexpr std::size_t kTernaryBytes = 13;
inline constexpr std::size_t kTernaryRoom = 80;
inline constexpr std::uint8_t kTernaryMost = 242;

HWY_INLINE void pack_ternary(const std::uint8_t* HWY_RESTRICT codes, std::uint8_t* HWY_RESTRICT out) {
#if HWY_TARGET == HWY_SCALAR
  for (std::size_t k = 0; k < kTernaryBytes; ++k) {
    unsigned digits = 0;
    for (std::size_t place = 5; place-- > 0;) digits = 3 * digits + codes[kTernaryBytes * place + k];
    out[k] = static_cast<std::uint8_t>(digits);
  }
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  auto digits = hn::LoadU(d, codes + 4 * kTernaryBytes);
  for (std::size_t place = 4; place-- > 0;) {
    digits = hn::Add(hn::Add(hn::Add(digits, digits), digits), hn::LoadU(d, codes + kTernaryBytes * place));
  }
  HWY_ALIGN std::uint8_t bytes[16];
  hn::Store(digits, d, bytes);
  std::memcpy(out, bytes, kTernaryBytes);
#endif
}

// Whether all bytes are five digits.
HWY_INLINE bool unpack_ternary(const std::uint8_t* HWY_RESTRICT in, std::uint8_t* HWY_RESTRICT codes) {
#if HWY_TARGET == HWY_SCALAR
  bool well = true;
  for (std::size_t k = 0; k < kTernaryBytes; ++k) {
    unsigned digits = in[k];
    well = well && digits <= kTernaryMost;
    for (std::size_t place = 0; place < 5; ++place) {
      codes[kTernaryBytes * place + k] = static_cast<std::uint8_t>(digits % 3);
      digits /= 3;
    }
  }
  return well;
#else
  namespace hn = hwy::HWY_NAMESPACE;
  const CodeTag d;
  const hn::RepartitionToWide<CodeTag> pairs;
  HWY_ALIGN std::uint8_t bytes[16] = {};
  std::memcpy(bytes, in, kTernaryBytes);
  auto digits = hn::Load(d, bytes);
  const auto most = hn::Set(d, kTernaryMost);
  const bool well = hn::AllTrue(d, hn::Eq(hn::Max(digits, most), most));
  const auto third = [&](auto v) HWY_ATTR {
    return hn::ShiftRight<9>(hn::Mul(v, hn::Set(pairs, std::uint16_t{171})));
  };
  for (std::size_t place = 0; place < 5; ++place) {
    // a third, rounded down, of each byte, of two in turn
    const auto both = hn::BitCast(pairs, digits);
    const auto low = third(hn::And(both, hn::Set(pairs, std::uint16_t{255})));
    const auto high = third(hn::ShiftRight<8>(both));
    const auto rest = hn::BitCast(d, hn::Or(low, hn::ShiftLeft<8>(high)));
    // places overlap: each is written over by the next
    hn::StoreU(hn::Sub(digits, hn::Add(hn::Add(rest, rest), rest)), d, codes + kTernaryBytes * place);
    digits = rest;
  }
  return well;
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();
#endif
