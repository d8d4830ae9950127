// SPDX-License-Identifier: Apache-2.0
#include "codec/sum_kernels.hpp"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/sum_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/codes-inl.hpp"
#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// 64 codes as 32 bytes, and back: byte k is code k + 16 * code 32 + k, modulo 256.
HWY_INLINE void pack_nibbles(const std::int8_t* codes, std::uint8_t* out) {
  const CodeTag d;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes);
  for (std::size_t k = 0; k < kBlockGroup / 2; k += hn::Lanes(d)) {
    hn::StoreU(hn::Add(hn::LoadU(d, bytes + k), codes_up<4>(hn::LoadU(d, bytes + kBlockGroup / 2 + k))), d,
               out + k);
  }
}

HWY_INLINE void unpack_nibbles(const std::uint8_t* in, std::int8_t* codes) {
  const CodeTag d;
  auto* bytes = reinterpret_cast<std::uint8_t*>(codes);
  const auto sign = hn::Set(d, std::uint8_t{8});
  const auto extended = [&](auto nibble) HWY_ATTR { return hn::Sub(hn::Xor(nibble, sign), sign); };
  for (std::size_t k = 0; k < kBlockGroup / 2; k += hn::Lanes(d)) {
    const auto both = hn::LoadU(d, in + k);
    const auto low = extended(hn::And(both, hn::Set(d, std::uint8_t{15})));
    hn::StoreU(low, d, bytes + k);
    hn::StoreU(extended(codes_down<4>(hn::Sub(both, low))), d, bytes + kBlockGroup / 2 + k);
  }
}

template <bool kNibbles, class A, bool kFeedback>
void encode_groups(const Summands<A, kFeedback>& v, std::size_t n, const SumGrid& grid, std::byte* out) {
  const Lanes64<A> d;
  const auto inverse = hn::Set(d, static_cast<A>(grid.inverse));
  const auto step = hn::Set(d, static_cast<A>(grid.step));
  const auto most = hn::Set(d, static_cast<A>(grid.most));
  const auto least = hn::Neg(most);
  HWY_ALIGN std::int8_t unpacked[kBlockGroup];
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    std::int8_t* codes = kNibbles ? unpacked : reinterpret_cast<std::int8_t*>(out);
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      const auto x = v.load(begin + i);
      const auto q = hn::Round(hn::Min(hn::Max(hn::Mul(x, inverse), least), most));
      v.leave(hn::Sub(x, hn::Mul(q, step)), begin + i);
      v.ask_for(begin + i + n);
      store_codes(d, q, codes + i);
    }
    if constexpr (kNibbles) pack_nibbles(unpacked, reinterpret_cast<std::uint8_t*>(out));
    out += kBlockGroup / (kNibbles ? 2 : 1);
  }
}

template <class A, bool kNibbles, bool kAdds>
int decode_groups(const std::byte* in, const SumGrid& grid, A* out, std::size_t n, double factor) {
  const Lanes64<A> d;
  const CodeTag bytes;
  const hn::RebindToSigned<CodeTag> signed_bytes;
  const auto by = hn::Set(d, static_cast<A>(grid.step) * static_cast<A>(factor));
  HWY_ALIGN std::int8_t unpacked[kBlockGroup];
  auto most = hn::Zero(bytes);
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    const auto* codes = reinterpret_cast<const std::int8_t*>(in);
    if constexpr (kNibbles) {
      unpack_nibbles(reinterpret_cast<const std::uint8_t*>(in), unpacked);
      codes = unpacked;
    }
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(bytes)) {
      most = hn::Max(most, hn::BitCast(bytes, hn::Abs(hn::LoadU(signed_bytes, codes + i))));
    }
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      A* to = out + begin + i;
      auto v = hn::Mul(load_codes(d, codes + i), by);
      if constexpr (kAdds) v = hn::Add(hn::LoadU(d, to), v);
      hn::StoreU(v, d, to);
    }
    in += kBlockGroup / (kNibbles ? 2 : 1);
  }
  HWY_ALIGN std::uint8_t lanes[16];
  hn::Store(most, bytes, lanes);
  return *std::max_element(lanes, lanes + hn::Lanes(bytes));
}

double largest(ConstView values, const void* residual) {
  // it is only read
  return with_summands(values, const_cast<void*>(residual),
                       [&](auto v) { return static_cast<double>(largest_of(v, values.count)); });
}

void encode(ConstView values, void* residual, const SumGrid& grid, std::byte* out) {
  with_summands(values, residual, [&](auto v) {
    grid.bits == 8 ? encode_groups<false>(v, values.count, grid, out)
                   : encode_groups<true>(v, values.count, grid, out);
  });
}

template <class A>
int decode_typed(const std::byte* in, const SumGrid& grid, View out, Into into, double factor) {
  auto* to = static_cast<A*>(out.data);
  if (grid.bits == 8) {
    return into == Into::add ? decode_groups<A, false, true>(in, grid, to, out.count, factor)
                             : decode_groups<A, false, false>(in, grid, to, out.count, factor);
  }
  return into == Into::add ? decode_groups<A, true, true>(in, grid, to, out.count, factor)
                           : decode_groups<A, true, false>(in, grid, to, out.count, factor);
}

int decode(const std::byte* in, const SumGrid& grid, View out, Into into, double factor) {
  return out.dtype == DType::f64 ? decode_typed<double>(in, grid, out, into, factor)
                                 : decode_typed<float>(in, grid, out, into, factor);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(largest);
HWY_EXPORT(encode);
HWY_EXPORT(decode);

double sum_largest(ConstView values, const void* residual) noexcept {
  return HWY_DYNAMIC_DISPATCH(largest)(values, residual);
}

void sum_encode(ConstView values, void* residual, const SumGrid& grid, std::byte* out) noexcept {
  HWY_DYNAMIC_DISPATCH(encode)(values, residual, grid, out);
}

int sum_decode(const std::byte* in, const SumGrid& grid, View out, Into into, double factor) noexcept {
  return HWY_DYNAMIC_DISPATCH(decode)(in, grid, out, into, factor);
}

}  // namespace terse::inline v0_1
#endif
