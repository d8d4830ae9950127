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

// Elements for which random words are made at a time.
inline constexpr std::size_t kRandomGroup = 64;

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

// random_word of kRandomGroup elements from occasion.position on.
HWY_INLINE void random_words(std::uint32_t seed, const Occasion& occasion,
                             std::uint32_t* HWY_RESTRICT words) {
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr std::size_t kCounters = kRandomGroup / 4;
  const hn::CappedTag<std::uint32_t, kCounters> d;
  const std::uint64_t quarter = occasion.position / 4;
  const auto first = static_cast<std::uint32_t>(quarter);
  const bool aligned = occasion.position % 4 == 0 && first <= ~std::uint32_t{kCounters};
  // a round waits for the one before: those of two vectors go side by side
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t second = lanes == kCounters ? 0 : lanes;
  for (std::size_t at = 0; aligned && at < kCounters; at += lanes + second) {
    auto a0 = hn::Iota(d, static_cast<std::uint32_t>(first + at));
    auto b0 = hn::Iota(d, static_cast<std::uint32_t>(first + at + second));
    auto a1 = hn::Set(d, static_cast<std::uint32_t>(quarter >> 32));
    auto b1 = a1;
    auto a2 = hn::Set(d, static_cast<std::uint32_t>(occasion.call));
    auto b2 = a2;
    auto a3 = hn::Set(d, static_cast<std::uint32_t>(occasion.call >> 32));
    auto b3 = a3;
    std::uint32_t key0 = seed;
    std::uint32_t key1 = occasion.stream;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      philox_round(d, key0, key1, a0, a1, a2, a3);
      philox_round(d, key0, key1, b0, b1, b2, b3);
      key0 += kPhiloxSteps[0];
      key1 += kPhiloxSteps[1];
    }
    hn::StoreInterleaved4(a0, a1, a2, a3, d, words + 4 * at);
    hn::StoreInterleaved4(b0, b1, b2, b3, d, words + 4 * (at + second));
  }
  if (aligned) return;
#endif
  for (std::size_t i = 0; i < kRandomGroup; ++i) words[i] = random_word(seed, occasion.at(i));
}

// As random_unit.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> random_units(D d, const std::uint32_t* words) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<std::uint32_t, D> d32;
  const hn::Rebind<std::int32_t, D> i32;
  const auto bits = hn::BitCast(i32, hn::ShiftRight<8>(hn::LoadU(d32, words)));
  const auto scale = hn::Set(d, static_cast<hn::TFromD<D>>(0x1p-24));
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::Mul(hn::ConvertTo(d, bits), scale);
  } else {
    return hn::Mul(hn::PromoteTo(d, bits), scale);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();
#endif
