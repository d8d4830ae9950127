// SPDX-License-Identifier: Apache-2.0
#include "codec/onebit_kernels.hpp"

#include <algorithm>
#include <cstring>

#include "codec/onebit_arithmetic.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/onebit_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/simd-inl.hpp"

#ifndef TERSE_ONEBIT_SHARED
#define TERSE_ONEBIT_SHARED
namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kGroup = kOnebitGroup;
constexpr std::size_t kSumRun = kOnebitRun;
// How many elements ahead memory is asked, by measurement: a core alone keeps too few cache lines on their
// way.
constexpr std::size_t kEncodeAhead = 1024;
constexpr std::size_t kEncodeAheadBf16 = 2048;  // with residuals of bf16, of which a cache holds more
constexpr std::size_t kDecodeAhead = 1024;
// Values of a block whose magnitudes add up to less than this can be rounded to bf16.
constexpr double kSafeSum = 0x1p126;

}  // namespace
}  // namespace terse::inline v0_1
#endif

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

// Up to 64 lanes of sign bits at lane `at` of a group's 8 bytes, which are zero before the first.
template <class D, class M>
HWY_INLINE void put_bits(D d, M negative, std::size_t at, std::uint8_t* group) {
  if (HWY_ARCH_X86 && hn::Lanes(d) % 8 == 0) {
    hn::StoreMaskBits(d, negative, group + at / 8);
  } else if (hn::Lanes(d) % 8 == 0) {  // not on x86, it may write 8 bytes whatever it has to say
    std::uint8_t bits[8] = {};
    std::memcpy(group + at / 8, bits, hn::StoreMaskBits(d, negative, bits));
  } else {
    std::uint8_t bits[8] = {};
    hn::StoreMaskBits(d, negative, bits);
    group[at / 8] = static_cast<std::uint8_t>(group[at / 8] | (bits[0] << (at % 8)));
  }
}

template <class D>
HWY_INLINE auto get_bits(D d, std::uint64_t group, std::size_t at) {
  const std::uint64_t bits = group >> at;
  return hn::LoadMaskBits(d, reinterpret_cast<const std::uint8_t*>(&bits));
}

// v = x + e, or x (and e is null), from element `at` on.
template <bool kFeedback, class D, class T, class E>
HWY_INLINE hn::Vec<D> value_at(D d, const T* x, const E* e, std::size_t at) {
  if constexpr (kFeedback) {
    return hn::Add(load_as(d, x + at), load_as(d, e + at));
  } else {
    return load_as(d, x + at);
  }
}

// Adds one group's |v| or v^2 to the 64 sums.
template <OnebitScale kScale, bool kFeedback, class T, class E, class A>
HWY_INLINE void sum_group(const T* x, const E* e, A* HWY_RESTRICT sums) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t at = 0; at < kGroup; at += lanes) {
    const auto v = value_at<kFeedback>(d, x, e, at);
    const auto term = kScale == OnebitScale::l1 ? hn::Abs(v) : hn::Mul(v, v);
    hn::Store(hn::Add(hn::Load(d, sums + at), term), d, sums + at);
  }
}

// Writes one group's bits and residuals.
template <bool kFeedback, Range kRange, class T, class E, class A>
HWY_INLINE void sign_group(const T* x, E* e, A scale, std::uint8_t* bits) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto plus = hn::Set(d, scale);
  const auto minus = hn::Set(d, -scale);
  if (lanes % 8 != 0) std::memset(bits, 0, kGroup / 8);
  for (std::size_t at = 0; at < kGroup; at += lanes) {
    const auto v = value_at<kFeedback>(d, x, e, at);
    const auto negative = hn::Lt(v, hn::Zero(d));
    put_bits(d, negative, at, bits);
    if constexpr (kFeedback) {
      store_residual<kRange>(d, hn::Sub(v, hn::IfThenElse(negative, minus, plus)), e + at);
    }
  }
}

// Asks for a group that will be needed soon.
template <class T>
HWY_INLINE void fetch_group(const T* p) {
  constexpr std::size_t kLine = 64 / sizeof(T);
  for (std::size_t i = 0; i < kGroup; i += kLine) hwy::Prefetch(p + i);
}

// T is the type of the values in memory, E that of the residuals, A that of all arithmetic. The kind of
// scale is chosen at run time, once a run of sums, so that the code for the signs is compiled once.
template <class A, bool kFeedback, class T, class E>
std::size_t encode_blocks(const T* x, E* e, std::size_t count, DType as, std::size_t block, OnebitScale kind,
                          double factor, std::byte* out) {
  constexpr bool kRounds = kFeedback && !std::is_same_v<E, A>;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = std::min(block, count - begin);
    const std::size_t whole = n / kGroup * kGroup;
    const std::size_t rest = n - whole;
    const T* xb = x + begin;
    E* eb = kFeedback ? e + begin : nullptr;

    // the last, short group is worked on as a copy padded with zeros, which change neither sums nor bits
    T x_rest[kGroup];
    E e_rest[kGroup];
    if (rest != 0) {
      std::fill_n(x_rest, kGroup, T{});
      std::fill_n(e_rest, kGroup, E{});
      std::memcpy(x_rest, xb + whole, rest * sizeof(T));
      if (kFeedback) std::memcpy(e_rest, eb + whole, rest * sizeof(E));
    }

    double total = 0;
    A last_run = 0;
    for (std::size_t run = 0; run < n; run += kSumRun) {
      HWY_ALIGN A sums[kGroup] = {};
      const auto sum_groups = [&]<OnebitScale kScale>() {
        for (std::size_t i = run; i < std::min(whole, run + kSumRun); i += kGroup) {
          sum_group<kScale, kFeedback>(xb + i, kFeedback ? eb + i : nullptr, sums);
        }
        if (rest != 0 && n - run <= kSumRun) sum_group<kScale, kFeedback>(x_rest, e_rest, sums);
      };
      if (kind == OnebitScale::l1) {
        sum_groups.template operator()<OnebitScale::l1>();
      } else {
        sum_groups.template operator()<OnebitScale::rms>();
      }
      last_run = add_tree(sums);
      total += static_cast<double>(last_run);
    }
    const A stored = rounded_scale(onebit_scale(last_run, total, n, kind), as);
    store_scale(stored, as, out);
    const A scale = onebit_received_scale(stored, factor, as);
    if (!is_finite(scale)) return begin;
    out += size_of(as);

    auto* bits = reinterpret_cast<std::uint8_t*>(out);
    // this pass finds its input in the first-level cache; memory may fetch the next block's beginning
    // meanwhile
    constexpr std::size_t kAhead = kRounds ? kEncodeAheadBf16 : kEncodeAhead;
    const std::size_t ahead = count - begin >= 2 * block ? std::min(block, kAhead) : 0;
    const auto sign_groups = [&]<Range kRange>() {
      for (std::size_t i = 0; i < whole; i += kGroup) {
        if (i < ahead) {
          fetch_group(xb + block + i);
          if (kFeedback) fetch_group(eb + block + i);
        }
        sign_group<kFeedback, kRange>(xb + i, kFeedback ? eb + i : nullptr, scale, bits + i / 8);
      }
    };
    // no element is larger than all of them together, with something to spare for roundings
    if (!kRounds || static_cast<double>(scale) * static_cast<double>(n) < kSafeSum) {
      sign_groups.template operator()<Range::safe>();
    } else if constexpr (kRounds) {
      sign_groups.template operator()<Range::any>();
    }
    if (rest != 0) {
      std::uint8_t bits_rest[kGroup / 8];
      sign_group<kFeedback, Range::any>(x_rest, e_rest, scale, bits_rest);
      std::memcpy(bits + whole / 8, bits_rest, (rest + 7) / 8);
      if (kFeedback) std::memcpy(eb + whole, e_rest, rest * sizeof(E));
    }
    out += (n + 7) / 8;
  }
  return count;
}

template <class T, class A>
std::size_t encode_typed(ConstView values, View residual, DType as, std::size_t block, OnebitScale scale,
                         double factor, std::byte* out) {
  const auto* x = static_cast<const T*>(values.data);
  const auto with = [&]<bool kFeedback, class E>(E* e) {
    return encode_blocks<A, kFeedback>(x, e, values.count, as, block, scale, factor, out);
  };
  auto* full = static_cast<A*>(residual.data);
  if (full == nullptr) return with.template operator()<false>(full);
  if constexpr (std::is_same_v<A, float>) {
    if (residual.dtype == DType::bf16) {
      return with.template operator()<true>(static_cast<bfloat16*>(residual.data));
    }
  }
  return with.template operator()<true>(full);
}

std::size_t encode_views(ConstView values, View residual, DType as, std::size_t block, OnebitScale scale,
                         double factor, std::byte* out) {
  switch (values.dtype) {
    case DType::f32:
      return encode_typed<float, float>(values, residual, as, block, scale, factor, out);
    case DType::f64:
      return encode_typed<double, double>(values, residual, as, block, scale, factor, out);
    case DType::f16:
      return encode_typed<float16, float>(values, residual, as, block, scale, factor, out);
    case DType::bf16:
      break;
  }
  return encode_typed<bfloat16, float>(values, residual, as, block, scale, factor, out);
}

template <class A, Into kInto, class T>
HWY_INLINE void decode_group(std::uint64_t bits, A scale, T* out) {
  const Lanes64<A> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto plus = hn::Set(d, scale);
  const auto minus = hn::Set(d, -scale);
  for (std::size_t at = 0; at < kGroup; at += lanes) {
    auto v = hn::IfThenElse(get_bits(d, bits, at), minus, plus);
    if constexpr (kInto == Into::add) v = hn::Add(load_as(d, out + at), v);
    if constexpr (kInto == Into::stream) {
      hn::Stream(v, d, out + at);
    } else {
      store_as(d, v, out + at);
    }
  }
}

// The sign bits of elements [first, first + n) of a block, n at most a group.
HWY_INLINE std::uint64_t bits_of(const std::byte* in, std::size_t first, std::size_t n) {
  const std::size_t shift = first % 8;
  const std::size_t bytes = (shift + n + 7) / 8;
  std::uint64_t bits = 0;
  std::memcpy(&bits, in + first / 8, std::min(bytes, sizeof bits));
  bits >>= shift;
  if (bytes > sizeof bits)
    bits |= std::to_integer<std::uint64_t>(in[first / 8 + sizeof bits]) << (64 - shift);
  return n == kGroup ? bits : bits & ((std::uint64_t{1} << n) - 1);
}

// Less than a group, on a padded copy.
template <class A, Into kInto, class T>
HWY_INLINE void decode_part(std::uint64_t bits, A scale, T* out, std::size_t n) {
  constexpr Into kCopy = kInto == Into::add ? Into::add : Into::overwrite;
  T padded[kGroup] = {};
  if constexpr (kCopy == Into::add) std::memcpy(padded, out, n * sizeof(T));
  decode_group<A, kCopy>(bits, scale, padded);
  std::memcpy(out, padded, n * sizeof(T));
}

template <class A, Into kInto, class T>
bool decode_blocks(const std::byte* in, DType as, T* out, std::size_t count, std::size_t block,
                   double factor) {
  constexpr std::size_t kLine = 64;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t n = std::min(block, count - begin);
    const A stored = load_scale<A>(in, as);
    if (!is_block_scale(stored)) return false;
    const A scale = stored * static_cast<A>(factor);
    in += size_of(as);
    if (n % 8 != 0 && std::to_integer<unsigned>(in[n / 8]) >> n % 8 != 0) return false;  // padding
    T* to = out + begin;
    std::size_t i = 0;
    if constexpr (kInto == Into::stream) {  // stores past the caches begin on a cache line
      i = std::min(n, (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine / sizeof(T));
      if (i != 0) decode_part<A, kInto>(bits_of(in, 0, i), scale, to, i);
    }
    for (; i + kGroup <= n; i += kGroup) {
      if (kInto != Into::stream && count - begin - i >= kDecodeAhead + kGroup)
        fetch_group(to + i + kDecodeAhead);
      decode_group<A, kInto>(bits_of(in, i, kGroup), scale, to + i);
    }
    if (i != n) decode_part<A, kInto>(bits_of(in, i, n - i), scale, to + i, n - i);
    in += (n + 7) / 8;
  }
  if (kInto == Into::stream) hwy::FlushStream();
  return true;
}

bool decode_views(const std::byte* in, DType as, View out, std::size_t block, Into into, double factor) {
  const auto run = [&]<class A, class T>(A, T) {
    auto* to = static_cast<T*>(out.data);
    if (into == Into::add) return decode_blocks<A, Into::add>(in, as, to, out.count, block, factor);
    if constexpr (std::is_same_v<A, T>) {
      if (into == Into::stream && reinterpret_cast<std::uintptr_t>(to) % sizeof(T) == 0) {
        return decode_blocks<A, Into::stream>(in, as, to, out.count, block, factor);
      }
    }
    return decode_blocks<A, Into::overwrite>(in, as, to, out.count, block, factor);
  };
  switch (out.dtype) {
    case DType::f32:
      return run(0.0f, 0.0f);
    case DType::f64:
      return run(0.0, 0.0);
    case DType::f16:
      return run(0.0f, float16{});
    case DType::bf16:
      break;
  }
  return run(0.0f, bfloat16{});
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(encode_views);
HWY_EXPORT(decode_views);

std::size_t onebit_encode(ConstView values, View residual, DType as, std::size_t block, OnebitScale scale,
                          double factor, std::byte* out) {
  return HWY_DYNAMIC_DISPATCH(encode_views)(values, residual, as, block, scale, factor, out);
}

bool onebit_decode(const std::byte* in, DType as, View out, std::size_t block, Into into, double factor) {
  return HWY_DYNAMIC_DISPATCH(decode_views)(in, as, out, block, into, factor);
}

}  // namespace terse::inline v0_1
#endif
