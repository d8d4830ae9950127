// SPDX-License-Identifier: Apache-2.0
//
// What host and device share for one element or block, beside the host's kernels, which do many at a time.
#include "codec/arithmetic.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "codec/elements.hpp"
#include "codec/onebit_arithmetic.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

// Floats of every exponent, both signs, and those at the edges.
std::vector<float> many_floats() {
  std::mt19937 random(3);
  std::vector<float> floats;
  for (std::uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (int i = 0; i < 64; ++i) {
      const std::uint32_t low = i == 0   ? 0
                                : i == 1 ? 0x7fffffu
                                : i == 2 ? 0x7f8000u
                                : i == 3 ? 0x008000u
                                         : random() & 0x7fffffu;
      for (const std::uint32_t sign : {0u, 0x80000000u}) {
        floats.push_back(std::bit_cast<float>(sign | exponent << 23 | low));
      }
    }
  }
  return floats;
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <class H>
void expect_conversions() {
  std::vector<H> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = H::from_bits(static_cast<std::uint16_t>(i));
  std::vector<float> wide(halves.size());
  std::vector<float> own(halves.size());
  convert(view(std::as_const(halves)), view(wide), Into::overwrite, 1.0);
  for (std::size_t i = 0; i < halves.size(); ++i) own[i] = widened(halves[i]);
  // a NaN's payload is nobody's promise
  for (std::size_t i = 0; i < halves.size(); ++i) {
    ASSERT_TRUE(std::isnan(own[i])
                    ? std::isnan(wide[i])
                    : std::bit_cast<std::uint32_t>(own[i]) == std::bit_cast<std::uint32_t>(wide[i]))
        << i;
  }
  const auto floats = many_floats();
  std::vector<H> rounded_by_host(floats.size());
  round_to(view(floats), view(rounded_by_host));
  for (std::size_t i = 0; i < floats.size(); ++i) {
    if (std::isnan(floats[i])) continue;
    ASSERT_EQ(rounded<H>(floats[i]).bits, rounded_by_host[i].bits) << floats[i];
  }
}

TEST(Arithmetic, ConversionsAreTheHosts) {
  expect_conversions<float16>();
  expect_conversions<bfloat16>();
}

TEST(Arithmetic, KeptResidualsAreTheHosts) {
  const auto floats = many_floats();
  std::vector<bfloat16> by_host(floats.size());
  keep(view(floats), view(by_host));
  for (std::size_t i = 0; i < floats.size(); ++i) {
    ASSERT_EQ(kept<bfloat16>(floats[i]).bits, by_host[i].bits) << floats[i];
    ASSERT_EQ(std::bit_cast<std::uint32_t>(kept<float>(floats[i])), std::bit_cast<std::uint32_t>(floats[i]));
  }
}

TEST(Arithmetic, FinitenessSignsAndMagnitudes) {
  for (const float value : many_floats()) {
    ASSERT_EQ(is_finite(value), std::isfinite(value)) << value;
    ASSERT_EQ(is_finite(static_cast<double>(value)), std::isfinite(value)) << value;
    ASSERT_EQ(has_sign(value), std::signbit(value)) << value;
    ASSERT_EQ(has_sign(static_cast<double>(value)), std::signbit(value)) << value;
    if (std::isnan(value)) continue;
    ASSERT_EQ(magnitude_of(value), std::fabs(value));
    ASSERT_EQ(magnitude_of(static_cast<double>(value)), std::fabs(static_cast<double>(value)));
    ASSERT_EQ(onebit_negative(value), value < 0);
  }
}

TEST(Arithmetic, DivisionIsTheHosts) {
  for (const double by : {1.0, 2.0, 3.0, 5.0, 7.0, 8.0, 48.0, 1024.0}) {
    auto floats = many_floats();
    std::vector<float> own;
    for (const float value : floats) own.push_back(Divisor<float>(by)(value));
    divide(view(floats), by);
    for (std::size_t i = 0; i < floats.size(); ++i) {
      ASSERT_TRUE(std::isnan(floats[i]) || own[i] == floats[i]) << i << " by " << by;
    }
  }
}

// A block by one element after the other, in the order that the shared functions speak of.
template <class T>
std::vector<std::byte> encode_blocks(const std::vector<T>& x, std::vector<AccumulatorOf<T>>& e,
                                     std::size_t block, OnebitScale scale, double factor) {
  using A = AccumulatorOf<T>;
  const DType as = dtype_of<T>;
  std::vector<std::byte> out(onebit_bytes(x.size(), block, as));
  std::byte* at = out.data();
  for (std::size_t begin = 0; begin < x.size(); begin += block) {
    const std::size_t n = std::min(block, x.size() - begin);
    std::vector<A> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = widened(x[begin + i]) + e[begin + i];
    double total = 0;
    A last{};
    for (std::size_t run = 0; run < n; run += kOnebitRun) {
      std::vector<A> sums(kOnebitGroup);
      for (std::size_t i = run; i < std::min(n, run + kOnebitRun); ++i) {
        sums[(i - run) % kOnebitGroup] += onebit_term(v[i], scale);
      }
      for (std::size_t half = kOnebitGroup / 2; half > 0; half /= 2) {
        for (std::size_t j = 0; j < half; ++j) sums[j] += sums[j + half];
      }
      last = sums[0];
      total += static_cast<double>(last);
    }
    const A stored = rounded_scale(onebit_scale(last, total, n, scale), as);
    const A received = onebit_received_scale(stored, factor, as);
    store_scale(stored, as, at);
    EXPECT_EQ(load_scale<A>(at, as), stored);
    at += size_of(as);
    for (std::size_t i = 0; i < n; ++i) {
      const bool negative = onebit_negative(v[i]);
      if (negative) at[i / 8] |= static_cast<std::byte>(1u << i % 8);
      e[begin + i] = kept<A>(v[i] - (negative ? -received : received));
    }
    at += (n + 7) / 8;
  }
  return out;
}

template <class T>
void expect_onebit() {
  using A = AccumulatorOf<T>;
  for (const std::size_t block : {std::size_t{8}, std::size_t{64}, std::size_t{2048}, std::size_t{20000}}) {
    for (const OnebitScale scale : {OnebitScale::l1, OnebitScale::rms}) {
      for (const double factor : {1.0, 3.0}) {
        const std::size_t count = 2 * block + 13;
        const auto values = normal_values(count, dtype_of<T>, block, 0);
        const auto residuals = normal_values(count, dtype_of<A>, block, 1);
        std::vector<T> x;
        std::vector<A> e;
        for (std::size_t i = 0; i < count; ++i) {
          x.push_back(static_cast<T>(static_cast<A>(values[i])));
          e.push_back(static_cast<A>(residuals[i]));
        }
        std::vector<A> by_host = e;
        std::vector<std::byte> out(onebit_bytes(count, block, dtype_of<T>));
        ASSERT_EQ(onebit_encode(view(std::as_const(x)), view(by_host), dtype_of<T>, block, scale, factor,
                                out.data()),
                  count);
        ASSERT_EQ(encode_blocks(x, e, block, scale, factor), out) << name(dtype_of<T>) << " " << block;
        ASSERT_EQ(bytes_of(e), bytes_of(by_host)) << name(dtype_of<T>) << " " << block;
      }
    }
  }
}

TEST(Arithmetic, OnebitIsTheHosts) {
  expect_onebit<float>();
  expect_onebit<double>();
  expect_onebit<float16>();
  expect_onebit<bfloat16>();
}

}  // namespace
}  // namespace terse::test
