// SPDX-License-Identifier: Apache-2.0
#include "codec/quant_kernels.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "codec/quant_arithmetic.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/quant_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/codes-inl.hpp"
#include "codec/philox-inl.hpp"
#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// The smallest and the largest of the values and zero; NaN where one is not finite. Of whole groups, which
// have an even number of vectors.
template <class A, bool kFeedback>
HWY_INLINE void find_range(const Summands<A, kFeedback>& v, std::size_t n, A& low, A& high) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t second = lanes == kBlockGroup ? 0 : lanes;  // twice the same, if a group is one vector
  auto low0 = hn::Zero(d);
  auto low1 = low0;
  auto high0 = low0;
  auto high1 = low0;
  auto bad0 = low0;  // stay zero unless some value times zero is NaN
  auto bad1 = low0;
  for (std::size_t i = 0; i < n; i += lanes + second) {
    const auto x = v.load(i);
    const auto y = v.load(i + second);
    low0 = hn::Min(low0, x);
    low1 = hn::Min(low1, y);
    high0 = hn::Max(high0, x);
    high1 = hn::Max(high1, y);
    bad0 = hn::Or(bad0, hn::Mul(x, hn::Zero(d)));
    bad1 = hn::Or(bad1, hn::Mul(y, hn::Zero(d)));
  }
  const auto bad = hn::Or(bad0, bad1);
  low = hn::GetLane(hn::MinOfLanes(d, hn::Min(low0, low1)));
  high = hn::GetLane(hn::MaxOfLanes(d, hn::Max(high0, high1)));
  if (!hn::AllTrue(d, hn::Eq(bad, hn::Zero(d)))) low = high = std::numeric_limits<A>::quiet_NaN();
}

// Encoders that round to nearest are so quick that a branch for each group of elements would show: the bits
// of a code are a template argument of theirs. Stochastic encoders and decoders branch where they pack
// (kAsked), so that they are compiled once for all numbers of bits.
constexpr unsigned kAsked = 0;

template <unsigned kBits>
HWY_INLINE void pack_codes(unsigned bits, const std::uint8_t* codes, std::uint8_t* out) {
  if constexpr (kBits != kAsked) {
    pack_group<kBits>(codes, out);
  } else {
    if (bits == 4) return pack_group<4>(codes, out);
    if (bits == 2) return pack_group<2>(codes, out);
    pack_group<6>(codes, out);
  }
}
HWY_INLINE void unpack_codes(unsigned bits, const std::uint8_t* in, std::uint8_t* codes) {
  if (bits == 4) return unpack_group<4>(in, codes);
  if (bits == 2) return unpack_group<2>(in, codes);
  unpack_group<6>(in, codes);
}

template <unsigned kBits, Rounding kRounding, class A, bool kFeedback>
HWY_INLINE void quantize(const Summands<A, kFeedback>& v, std::size_t n, std::size_t ahead,
                         const QuantGrid<A>& grid, unsigned asked, std::uint32_t seed, const RandomKey& key,
                         std::uint8_t* out) {
  const unsigned bits = kBits == kAsked ? asked : kBits;
  const Lanes64<A> d;
  const auto inverse = hn::Set(d, grid.inverse);
  const auto scale = hn::Set(d, grid.scale);
  const auto zero = hn::Set(d, static_cast<A>(grid.zero));
  const auto most = hn::Set(d, static_cast<A>(grid.top - grid.zero));
  const auto least = hn::Neg(zero);
  HWY_ALIGN std::uint8_t unpacked[kBlockGroup];
  HWY_ALIGN std::uint16_t halves[kRandomGroup];
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    const std::uint16_t* drawn = halves + begin % kRandomGroup;
    if (kRounding == Rounding::stochastic && drawn == halves) {
      random_halves(seed, key.at(begin), std::min(kRandomGroup, n - begin), halves);
    }
    std::uint8_t* codes = bits == 8 ? out : unpacked;
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      const auto x = v.load(begin + i);
      const auto t = hn::Min(hn::Max(hn::Mul(x, inverse), least), most);
      auto q = t;
      if constexpr (kRounding == Rounding::nearest) {
        q = hn::Round(t);
      } else {
        const auto below = hn::Floor(t);
        const auto up = hn::Lt(random_units(d, drawn + i), hn::Sub(t, below));
        q = hn::Add(below, hn::IfThenElseZero(up, hn::Set(d, A{1})));
      }
      v.leave(hn::Sub(x, hn::Mul(q, scale)), begin + i);
      v.ask_for(begin + i + ahead);
      store_codes(d, hn::Add(q, zero), codes + i);
    }
    if (bits != 8) pack_codes<kBits>(bits, unpacked, out);
    out += kBlockGroup / 8 * bits;
  }
}

template <unsigned kBits, Rounding kRounding, class A, bool kFeedback>
std::size_t encode_run(const Summands<A, kFeedback>& v, std::size_t count, std::size_t block, DType as,
                       const QuantFormat& format, const RandomKey& key, std::byte* out) {
  // A block's grid is a chain of divisions, which takes as long as its codes: those of several go side by
  // side.
  constexpr std::size_t kTogether = 32;
  QuantGrid<A> grids[kTogether];
  A low[kTogether];
  A high[kTogether];
  for (std::size_t first = 0; first < count; first += kTogether * block) {
    const std::size_t last = std::min(count, first + kTogether * block);
    std::size_t b = 0;
    for (std::size_t begin = first; begin < last; begin += block, ++b) {
      find_range(v.from(begin), std::min(block, last - begin), low[b], high[b]);
    }
    for (std::size_t k = 0; k < b; ++k) grids[k] = quant_grid(low[k], high[k], format);
    b = 0;
    for (std::size_t begin = first; begin < last; begin += block, ++b) {
      const std::size_t n = std::min(block, last - begin);
      const QuantGrid<A>& grid = grids[b];
      if (low[b] != low[b] || !is_quant_grid(grid, as)) return begin;  // a value, or what would be decoded
      store_quant_grid(grid, format, out);
      out += format.head(sizeof(A));
      quantize<kBits, kRounding>(v.from(begin), n, count, grid, format.bits, format.seed, key.at(begin),
                                 reinterpret_cast<std::uint8_t*>(out));
      out += n / 8 * format.bits;
    }
  }
  return count;
}

std::size_t encode_blocks(ConstView values, void* residual, std::size_t block, DType as,
                          const QuantFormat& format, const RandomKey& key, std::byte* out) {
  return with_summands(values, residual, [&](auto v) {
    const auto run = [&]<unsigned kBits, Rounding kRounding>() {
      return encode_run<kBits, kRounding>(v, values.count, block, as, format, key, out);
    };
    if (format.rounding != Rounding::nearest) return run.template operator()<kAsked, Rounding::stochastic>();
    switch (format.bits) {
      case 8:
        return run.template operator()<8, Rounding::nearest>();
      case 6:
        return run.template operator()<6, Rounding::nearest>();
      case 4:
        return run.template operator()<4, Rounding::nearest>();
      default:
        return run.template operator()<2, Rounding::nearest>();
    }
  });
}

// Returns the largest code.
template <bool kPacked, bool kAdds, class A>
HWY_INLINE unsigned dequantize(const std::uint8_t* in, A* out, std::size_t n, unsigned bits, A scale,
                               unsigned zero) {
  const Lanes64<A> d;
  const CodeTag bytes;
  const auto by = hn::Set(d, scale);
  const auto middle = hn::Set(d, static_cast<A>(zero));
  HWY_ALIGN std::uint8_t unpacked[kBlockGroup];
  auto most = hn::Zero(bytes);
  for (std::size_t begin = 0; begin < n; begin += kBlockGroup) {
    const std::uint8_t* codes = in;
    if constexpr (kPacked) {
      unpack_codes(bits, in, unpacked);
      codes = unpacked;
    }
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(bytes)) {
      most = hn::Max(most, hn::LoadU(bytes, codes + i));
    }
    for (std::size_t i = 0; i < kBlockGroup; i += hn::Lanes(d)) {
      A* to = out + begin + i;
      auto v = hn::Mul(hn::Sub(load_codes(d, codes + i), middle), by);
      if constexpr (kAdds) v = hn::Add(hn::LoadU(d, to), v);
      hn::StoreU(v, d, to);
    }
    in += kBlockGroup / 8 * bits;
  }
  HWY_ALIGN std::uint8_t lanes[16];
  hn::Store(most, bytes, lanes);
  return *std::max_element(lanes, lanes + hn::Lanes(bytes));
}

template <bool kPacked, class A>
bool decode_run(const std::byte* in, std::size_t block, DType as, A* out, std::size_t count,
                const QuantFormat& format, Into into, double factor) {
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = std::min(block, count - begin);
    const QuantGrid<A> grid = load_quant_grid<A>(in, format);
    if (!is_quant_grid(grid, as)) return false;
    in += format.head(sizeof(A));
    const auto* codes = reinterpret_cast<const std::uint8_t*>(in);
    const A scale = grid.scale * static_cast<A>(factor);
    const unsigned most =
        into == Into::add ? dequantize<kPacked, true>(codes, out + begin, n, format.bits, scale, grid.zero)
                          : dequantize<kPacked, false>(codes, out + begin, n, format.bits, scale, grid.zero);
    if (most > grid.top) return false;
    in += n / 8 * format.bits;
  }
  return true;
}

bool decode_blocks(const std::byte* in, std::size_t block, DType as, View out, const QuantFormat& format,
                   Into into, double factor) {
  const auto run = [&]<bool kPacked>() {
    return out.dtype == DType::f64 ? decode_run<kPacked>(in, block, as, static_cast<double*>(out.data),
                                                         out.count, format, into, factor)
                                   : decode_run<kPacked>(in, block, as, static_cast<float*>(out.data),
                                                         out.count, format, into, factor);
  };
  return format.bits == 8 ? run.template operator()<false>() : run.template operator()<true>();
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(encode_blocks);
HWY_EXPORT(decode_blocks);

std::size_t quant_encode(ConstView values, void* residual, std::size_t block, DType as,
                         const QuantFormat& format, const RandomKey& key, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_blocks)(values, residual, block, as, format, key, out);
}

bool quant_decode(const std::byte* in, std::size_t block, DType as, View out, const QuantFormat& format,
                  Into into, double factor) {
  return HWY_DYNAMIC_DISPATCH(decode_blocks)(in, block, as, out, format, into, factor);
}

}  // namespace terse::inline v0_1
#endif
