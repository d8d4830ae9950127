// SPDX-License-Identifier: Apache-2.0
#include "codec/shuffle.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/shuffle.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace terse::inline v0_1 {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Bytes8 = hn::ScalableTag<std::uint8_t>;
constexpr std::size_t kHalves = 512;  // elements of 8 bytes that are taken apart at a time

void shuffle2(const std::uint8_t* from, std::size_t n, std::uint8_t* to, std::size_t stride) {
  const Bytes8 d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::Vec<Bytes8> a;
    hn::Vec<Bytes8> b;
    hn::LoadInterleaved2(d, from + 2 * i, a, b);
    hn::StoreU(a, d, to + i);
    hn::StoreU(b, d, to + stride + i);
  }
  for (; i < n; ++i) {
    for (std::size_t k = 0; k < 2; ++k) to[k * stride + i] = from[2 * i + k];
  }
}

void shuffle4(const std::uint8_t* from, std::size_t n, std::uint8_t* to, std::size_t stride) {
  const Bytes8 d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::Vec<Bytes8> a;
    hn::Vec<Bytes8> b;
    hn::Vec<Bytes8> c;
    hn::Vec<Bytes8> e;
    hn::LoadInterleaved4(d, from + 4 * i, a, b, c, e);
    hn::StoreU(a, d, to + i);
    hn::StoreU(b, d, to + stride + i);
    hn::StoreU(c, d, to + 2 * stride + i);
    hn::StoreU(e, d, to + 3 * stride + i);
  }
  for (; i < n; ++i) {
    for (std::size_t k = 0; k < 4; ++k) to[k * stride + i] = from[4 * i + k];
  }
}

void unshuffle2(const std::uint8_t* a, const std::uint8_t* b, std::size_t n, std::uint8_t* to) {
  const Bytes8 d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreInterleaved2(hn::LoadU(d, a + i), hn::LoadU(d, b + i), d, to + 2 * i);
  }
  for (; i < n; ++i) {
    to[2 * i] = a[i];
    to[2 * i + 1] = b[i];
  }
}

void unshuffle4(const std::array<const std::uint8_t*, 4>& from, std::size_t n, std::uint8_t* to) {
  const Bytes8 d;
  std::size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreInterleaved4(hn::LoadU(d, from[0] + i), hn::LoadU(d, from[1] + i), hn::LoadU(d, from[2] + i),
                          hn::LoadU(d, from[3] + i), d, to + 4 * i);
  }
  for (; i < n; ++i) {
    for (std::size_t k = 0; k < 4; ++k) to[4 * i + k] = from[k][i];
  }
}

// Elements of 8 bytes are two halves of 4.
void shuffle8(const std::uint8_t* from, std::size_t n, std::uint8_t* to) {
  std::array<std::uint32_t, kHalves> low;
  std::array<std::uint32_t, kHalves> high;
  for (std::size_t begin = 0; begin < n; begin += kHalves) {
    const std::size_t m = std::min(kHalves, n - begin);
    for (std::size_t i = 0; i < m; ++i) {
      std::uint64_t both = 0;
      std::memcpy(&both, from + 8 * (begin + i), sizeof both);
      low[i] = static_cast<std::uint32_t>(both);
      high[i] = static_cast<std::uint32_t>(both >> 32);
    }
    shuffle4(reinterpret_cast<const std::uint8_t*>(low.data()), m, to + begin, n);
    shuffle4(reinterpret_cast<const std::uint8_t*>(high.data()), m, to + 4 * n + begin, n);
  }
}

void unshuffle8(const std::array<const std::uint8_t*, kMostPlanes>& from, std::size_t n, std::uint8_t* to) {
  std::array<std::uint32_t, kHalves> low;
  std::array<std::uint32_t, kHalves> high;
  for (std::size_t begin = 0; begin < n; begin += kHalves) {
    const std::size_t m = std::min(kHalves, n - begin);
    unshuffle4({from[0] + begin, from[1] + begin, from[2] + begin, from[3] + begin}, m,
               reinterpret_cast<std::uint8_t*>(low.data()));
    unshuffle4({from[4] + begin, from[5] + begin, from[6] + begin, from[7] + begin}, m,
               reinterpret_cast<std::uint8_t*>(high.data()));
    for (std::size_t i = 0; i < m; ++i) {
      const std::uint64_t both = low[i] | std::uint64_t{high[i]} << 32;
      std::memcpy(to + 8 * (begin + i), &both, sizeof both);
    }
  }
}

void shuffle_bytes(const std::byte* elements, std::size_t count, std::size_t width, std::byte* planes) {
  const auto* from = reinterpret_cast<const std::uint8_t*>(elements);
  auto* to = reinterpret_cast<std::uint8_t*>(planes);
  if (width == 2) return shuffle2(from, count, to, count);
  if (width == 4) return shuffle4(from, count, to, count);
  shuffle8(from, count, to);
}

void unshuffle_bytes(const std::array<const std::byte*, kMostPlanes>& planes, std::size_t count,
                     std::size_t width, std::byte* elements) {
  std::array<const std::uint8_t*, kMostPlanes> from{};
  for (std::size_t k = 0; k < width; ++k) from[k] = reinterpret_cast<const std::uint8_t*>(planes[k]);
  auto* to = reinterpret_cast<std::uint8_t*>(elements);
  if (width == 2) return unshuffle2(from[0], from[1], count, to);
  if (width == 4) return unshuffle4({from[0], from[1], from[2], from[3]}, count, to);
  unshuffle8(from, count, to);
}

}  // namespace HWY_NAMESPACE
}  // namespace terse::inline v0_1
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace terse::inline v0_1 {

HWY_EXPORT(shuffle_bytes);
HWY_EXPORT(unshuffle_bytes);

void shuffle(const std::byte* elements, std::size_t count, std::size_t width, std::byte* planes) {
  if (width == 1) {
    std::copy_n(elements, count, planes);
  } else {
    HWY_DYNAMIC_DISPATCH(shuffle_bytes)(elements, count, width, planes);
  }
}

void unshuffle(const std::array<const std::byte*, kMostPlanes>& planes, std::size_t count, std::size_t width,
               std::byte* elements) {
  if (width == 1) {
    std::copy_n(planes[0], count, elements);
  } else {
    HWY_DYNAMIC_DISPATCH(unshuffle_bytes)(planes, count, width, elements);
  }
}

}  // namespace terse::inline v0_1
#endif
