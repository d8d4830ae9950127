// SPDX-License-Identifier: Apache-2.0
//
// Residuals kept in bf16: bits by a scalar reference that shares no line with the library, what is owed
// within the rounding of bf16, and what has no place in bf16.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "codec/elements.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr double kUnit = 0x1p-8;  // the most that rounding to bf16 changes, over the value

Bytes encode(const Codec& codec, ConstView values, View residual, DType as, double factor = 1.0) {
  Bytes message(codec.max_bytes(values.count, as));
  message.resize(codec.encode(values, residual, message, as, factor));
  return message;
}

/// What bf16 keeps of a finite value: 8 binary digits, to nearest even, and none beyond its range.
double bf16_of(double value) {
  constexpr double kMost = 0x1.FEp127;
  if (value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);  // value = fraction * 2^exponent, 1/2 <= fraction < 1
  const double step = std::ldexp(1.0, std::max(exponent - 8, -133));
  return std::clamp(std::nearbyint(value / step) * step, -kMost, kMost);
}

std::uint16_t bits_of(const Tensor& tensor, std::size_t i) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, tensor.bytes().data() + 2 * i, sizeof bits);
  return bits;
}

/// By hand: a block of 8 whose scale is 1, with both kinds of ties.
TEST(ResidualBf16, BitsByHand) {
  const auto codec = make_codec("onebit:block=8");
  const Tensor values(std::vector<double>{2 + 0x1p-8, -2 - 0x1.8p-7, 2 + 0x1p-8 + 0x1p-20, 0.5, 0.25, -0.125,
                                          0.0625, 1.04296875 - 0x1p-20},
                      DType::f32);
  Tensor residual(8, DType::bf16, 1);
  const Bytes message = encode(*codec, values.view(), residual.view(), DType::f32);
  Tensor decoded(8, DType::f32);
  codec->decode(message, decoded.view());
  const std::uint16_t want[] = {0x3f80, 0xbf82, 0x3f81, 0xbf00, 0xbf40, 0x3f60, 0xbf70, 0x3d30};
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(std::abs(decoded[i]), 1.0);
    EXPECT_EQ(bits_of(residual, i), want[i]) << i;
  }
  EXPECT_TRUE(residual.guards_intact());
}

/// Every codec, several steps: the message is that of the sum, and the residual is the difference, rounded.
TEST(ResidualBf16, IsTheRoundedDifference) {
  std::size_t checked = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (codec->traits().lossless) continue;
    for (const DType as : {DType::f32, DType::f16, DType::bf16}) {
      if (!codec->supports(as)) continue;
      for (const DType from : {as, DType::f32}) {
        for (const std::size_t count : interesting_counts(*codec, 1009)) {
          SCOPED_TRACE(spec + ", " + std::to_string(count) + " " + std::string(name(as)) + " from " +
                       std::string(name(from)));
          Tensor residual(count, DType::bf16, count % 3);
          for (std::uint64_t step = 0; step < 3; ++step) {
            const Tensor values(normal_values(count, from, step, 0), from, count % 5);
            const Tensor old = residual;
            const Tensor v(add_in(DType::f32, values.doubles(), old.doubles()), DType::f32);
            const Bytes message = encode(*codec, values.view(), residual.view(), as);
            ASSERT_EQ(message, encode(*codec, v.view(), {}, as));
            Tensor decoded(count, DType::f32);
            codec->decode(message, decoded.view());
            const bool sums = from != as;  // those are taken from what is received
            for (std::size_t i = 0; i < count; ++i) {
              const double q = sums ? round_to(decoded[i], as) : decoded[i];
              const double difference = round_to(v[i] - q, DType::f32);
              ASSERT_EQ(residual[i], bf16_of(difference)) << i;
              ++checked;
            }
            ASSERT_TRUE(residual.guards_intact());
            Tensor undone = residual;
            codec->undo(message, values.view(), undone.view());
            for (std::size_t i = 0; i < count; ++i) {
              ASSERT_NEAR(undone[i], old[i],
                          kUnit * (std::abs(residual[i]) + std::abs(old[i])) * 1.01 +
                              4 * 0x1p-24 * (std::abs(v[i]) + 1))
                  << i;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(checked, 10000u);
}

/// What comes out and what went in differ by what is owed and by the roundings, which add up: at most by
/// their bound, and not by so much less that nothing was rounded.
TEST(ResidualBf16, LosesNoMoreThanItsRounding) {
  const std::size_t count = 5000;
  constexpr int kSteps = 50;
  const auto codec = make_codec("onebit:block=64");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const ResidualType type : {ResidualType::full, ResidualType::bf16}) {
      Tensor residual(count, residual_of(dtype, type));
      std::vector<double> lost(count, 0.0);
      std::vector<double> bound(count, 0.0);
      for (std::uint64_t step = 0; step < kSteps; ++step) {
        const Tensor values(normal_values(count, dtype, step, 0), dtype);
        const Bytes message = encode(*codec, values.view(), residual.view(), dtype);
        Tensor out(count, DType::f32);
        codec->decode(message, out.view());
        for (std::size_t i = 0; i < count; ++i) {
          lost[i] += values[i] - out[i];
          bound[i] += kUnit * std::abs(residual[i]) / (1 - kUnit);
        }
      }
      double worst = 0;
      for (std::size_t i = 0; i < count; ++i) {
        lost[i] -= residual[i];
        ASSERT_LE(std::abs(lost[i]), (type == ResidualType::full ? 0 : bound[i]) + 1e-5 * kSteps) << i;
        worst = std::max(worst, std::abs(lost[i]));
      }
      if (type == ResidualType::full) {
        EXPECT_LT(worst, 1e-4);
      } else {
        EXPECT_GT(worst, 1e-3) << "nothing was rounded";
      }
    }
  }
}

/// A residual that bf16 would round to infinity stays a number, which later values can take back.
TEST(ResidualBf16, OfTheLargestValuesStaysFinite) {
  const auto codec = make_codec("onebit");
  for (const double sign : {1.0, -1.0}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{2047}, std::size_t{2048 + 70}}) {
      Tensor values(2048 + 1100, DType::f32);
      values.set(at, sign * std::numeric_limits<float>::max());
      Tensor residual(values.count(), DType::bf16);
      ASSERT_FALSE(is_flagged(encode(*codec, values.view(), residual.view(), DType::f32)));
      EXPECT_EQ(residual[at], sign * 0x1.FEp127);
      for (std::size_t i = 0; i < values.count(); ++i) values.set(i, -residual[i]);
      ASSERT_FALSE(is_flagged(encode(*codec, values.view(), residual.view(), DType::f32)));
      EXPECT_EQ(residual[at], 0.0);
    }
  }
}

/// All kinds of f32, on every CPU that there is code for.
TEST(ResidualBf16, KeepsEveryKindOfValue) {
  std::vector<float> values;
  std::mt19937 random(1);
  for (int i = 0; i < 100003; ++i)
    values.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  for (std::uint32_t high = 0; high < 0x10000; high += 0x7f) {
    for (const std::uint32_t low : {0x0u, 0x1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  for (const float special : {0x1.FEp127f, 0x1.FEFFFEp127f, 0x1.FFp127f, std::numeric_limits<float>::max(),
                              std::numeric_limits<float>::infinity(), std::nanf("")}) {
    values.push_back(special);
    values.push_back(-special);
  }
  for (float& v : values) {  // as arithmetic makes them
    if (std::isnan(v)) v = std::copysign(std::numeric_limits<float>::quiet_NaN(), v);
  }
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
    std::vector<bfloat16> kept(values.size());
    keep(view(values), view(kept));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto got = static_cast<float>(kept[i]);
      if (std::isnan(values[i])) {
        ASSERT_TRUE(std::isnan(got)) << hwy::TargetName(target);
      } else {
        const double want = std::isinf(values[i]) ? values[i] : bf16_of(values[i]);
        ASSERT_EQ(got, want) << hwy::TargetName(target) << ": " << values[i];
        ASSERT_EQ(std::signbit(got), std::signbit(values[i])) << hwy::TargetName(target) << ": " << values[i];
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

TEST(ResidualBf16, OtherTypesAreRefused) {
  const auto codec = make_codec("onebit");
  const auto refusal = [&](DType values, DType residual, DType as) {
    const Tensor x(100, values);
    Tensor e(100, residual);
    try {
      encode(*codec, x.view(), e.view(), as);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return std::string(error.what());
    }
    return std::string();
  };
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(refusal(dtype, DType::bf16, dtype), "");
    EXPECT_EQ(refusal(dtype, DType::f32, dtype), "");
    EXPECT_NE(refusal(dtype, DType::f64, dtype).find("must be as many of f32 or bf16"), std::string::npos);
    EXPECT_NE(refusal(dtype, DType::f16, dtype), "");
  }
  EXPECT_NE(refusal(DType::f64, DType::bf16, DType::f64).find("must be as many of f64"), std::string::npos);
  const Tensor x(100, DType::f64);
  const Bytes message = encode(*codec, x.view(), {}, DType::f64);
  Tensor e(100, DType::bf16);
  EXPECT_THROW(codec->undo(message, x.view(), e.view()), Error);
}

}  // namespace
}  // namespace terse::test
