// SPDX-License-Identifier: Apache-2.0
#include "codec/topk_kernels.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/topk_kernels.cpp"
#include <hwy/foreach_target.h>

#include "codec/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {

template <class A, bool kFeedback, class T, class E>
TopkFound collect_elements(const T* x, const E* e, A* v, std::size_t n, std::int64_t bound,
                           std::uint32_t* found) {
  using Magnitude = typename MagnitudeOf<A>::Type;
  const Lanes64<A> d;
  const hn::RebindToSigned<decltype(d)> di;
  const std::size_t lanes = hn::Lanes(d);
  const auto below = hn::Set(di, static_cast<Magnitude>(bound - 1));
  const auto without_sign = hn::Set(di, std::numeric_limits<Magnitude>::max());
  auto largest = hn::Zero(di);
  std::uint32_t* next = found;
  const auto visit = [&](const T* xi, const E* ei, A* vi, std::size_t at) HWY_ATTR {
    auto sum = load_as(d, xi);
    if constexpr (kFeedback) sum = hn::Add(sum, load_as(d, ei));
    hn::StoreU(sum, d, vi);
    const auto magnitude = hn::And(hn::BitCast(di, sum), without_sign);
    largest = hn::Max(largest, magnitude);
    const auto is_large = hn::Gt(magnitude, below);
    if (hn::AllFalse(di, is_large)) return;
    std::uint8_t bytes[8] = {};
    hn::StoreMaskBits(di, is_large, bytes);
    std::uint64_t bits = 0;
    std::memcpy(&bits, bytes, sizeof bits);
    for (; bits != 0; bits &= bits - 1) {
      *next++ = static_cast<std::uint32_t>(at + static_cast<std::size_t>(std::countr_zero(bits)));
    }
  };
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) visit(x + i, kFeedback ? e + i : nullptr, v + i, i);
  if (i != n) {
    const std::size_t rest = n - i;
    T x_rest[64] = {};
    E e_rest[64] = {};
    A v_rest[64];
    std::memcpy(x_rest, x + i, rest * sizeof(T));
    if (kFeedback) std::memcpy(e_rest, e + i, rest * sizeof(E));
    visit(x_rest, e_rest, v_rest, i);
    std::memcpy(v + i, v_rest, rest * sizeof(A));
    while (next != found && next[-1] >= n) --next;  // zeros behind the end
  }
  HWY_ALIGN Magnitude lanes_of_largest[64];
  hn::Store(largest, di, lanes_of_largest);
  TopkFound result;
  result.count = static_cast<std::size_t>(next - found);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    result.largest = std::max<std::int64_t>(result.largest, lanes_of_largest[lane]);
  }
  return result;
}

TopkFound collect_views(ConstView values, ConstView residual, View v, std::int64_t bound,
                        std::uint32_t* found) {
  const auto run = [&]<class A, class T>(A, T) {
    const auto with = [&]<bool kFeedback, class E>(const E* e) {
      return collect_elements<A, kFeedback>(static_cast<const T*>(values.data), e, static_cast<A*>(v.data),
                                            values.count, bound, found);
    };
    if (residual.data == nullptr) return with.template operator()<false>(static_cast<const A*>(nullptr));
    if constexpr (std::is_same_v<A, float>) {
      if (residual.dtype == DType::bf16) {
        return with.template operator()<true>(static_cast<const bfloat16*>(residual.data));
      }
    }
    return with.template operator()<true>(static_cast<const A*>(residual.data));
  };
  switch (values.dtype) {
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

HWY_EXPORT(collect_views);

TopkFound topk_collect(ConstView values, ConstView residual, View v, std::int64_t bound,
                       std::uint32_t* found) {
  return HWY_DYNAMIC_DISPATCH(collect_views)(values, residual, v, bound, found);
}

}  // namespace terse::inline v0_1
#endif
