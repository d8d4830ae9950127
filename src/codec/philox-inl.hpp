// SPDX-License-Identifier: Apache-2.0
// Included once per SIMD target by Highway's foreach_target, hence the guard that toggles.

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "codec/philox.hpp"

#if defined(TERSE_CODEC_PHILOX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TERSE_CODEC_PHILOX_INL
#undef TERSE_CODEC_PHILOX_INL
#else
#define TERSE_CODEC_PHILOX_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// Elements for which random numbers are made at a time, at most.
inline constexpr std::size_t kRandomGroup = 256;

#if HWY_TARGET != HWY_SCALAR
// Lane by lane, the high and the low half of a product.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE void multiply_halves(D d, V a, std::uint32_t factor, V& high, V& low) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RepartitionToWide<D> wide;
  const auto by = hn::Set(d, factor);
  const auto even = hn::MulEven(a, by);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(wide, a))), by);
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
}

template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE void philox_round(D d, std::uint32_t key0, std::uint32_t key1, V& c0, V& c1, V& c2, V& c3) {
  namespace hn = hwy::HWY_NAMESPACE;
  V high_a;
  V low_a;
  V high_b;
  V low_b;
  multiply_halves(d, c0, kPhiloxFactors[0], high_a, low_a);
  multiply_halves(d, c2, kPhiloxFactors[1], high_b, low_b);
  c0 = hn::Xor(hn::Xor(high_b, c1), hn::Set(d, key0));
  c1 = low_b;
  c2 = hn::Xor(hn::Xor(high_a, c3), hn::Set(d, key1));
  c3 = low_a;
}
#endif

// random_half of n elements from key.position on, whole groups of 64 and at most kRandomGroup; there is
// room for so many. Not inlined: a call costs little beside its work, and its code would be most of an
// encoder's.
inline HWY_NOINLINE void random_halves(std::uint32_t seed, const RandomKey& key, std::size_t n,
                                       std::uint16_t* HWY_RESTRICT halves) {
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<std::uint32_t, kRandomGroup / 8> d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t counters = n / 8;
  const std::uint64_t eighth = key.position / 8;
  const auto first = static_cast<std::uint32_t>(eighth);
  const bool aligned = key.position % 8 == 0 && first <= ~std::uint32_t{kRandomGroup / 8};
  for (std::size_t at = 0; aligned && at < counters; at += 2 * lanes) {
    auto a0 = hn::Iota(d, static_cast<std::uint32_t>(first + at));
    auto a1 = hn::Set(d, static_cast<std::uint32_t>(eighth >> 32));
    auto a2 = hn::Set(d, static_cast<std::uint32_t>(key.call));
    auto a3 = hn::Set(d, static_cast<std::uint32_t>(key.call >> 32));
    auto b0 = hn::Iota(d, static_cast<std::uint32_t>(first + at + lanes));
    auto b1 = a1;
    auto b2 = a2;
    auto b3 = a3;
    std::uint32_t key0 = seed;
    std::uint32_t key1 = key.stream;
    const bool two = at + lanes < counters;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      philox_round(d, key0, key1, a0, a1, a2, a3);
      // a round depends on the one before it: rounds of a second vector fill the wait
      if (two) philox_round(d, key0, key1, b0, b1, b2, b3);
      key0 += kPhiloxSteps[0];
      key1 += kPhiloxSteps[1];
    }
    auto* words = reinterpret_cast<std::uint32_t*>(halves);  // the low half of each comes first
    hn::StoreInterleaved4(a0, a1, a2, a3, d, words + 4 * at);
    if (two) hn::StoreInterleaved4(b0, b1, b2, b3, d, words + 4 * (at + lanes));
  }
  if (aligned) return;
#endif
  for (std::size_t i = 0; i < n; ++i) halves[i] = random_half(seed, key.at(i));
}

// As random_unit.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> random_units(D d, const std::uint16_t* halves) {
  namespace hn = hwy::HWY_NAMESPACE;
  using A = hn::TFromD<D>;
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::int32_t, D> i32;
  const auto bits = hn::PromoteTo(i32, hn::LoadU(d16, halves));
  const auto scale = hn::Set(d, static_cast<A>(0x1p-16));
  const auto middle = hn::Set(d, static_cast<A>(0.5));
  if constexpr (sizeof(A) == 4) {
    return hn::Mul(hn::Add(hn::ConvertTo(d, bits), middle), scale);
  } else {
    return hn::Mul(hn::Add(hn::PromoteTo(d, bits), middle), scale);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();
#endif
