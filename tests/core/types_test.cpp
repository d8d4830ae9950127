// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <terse/error.hpp>
#include <terse/types.hpp>
#include <terse/version.hpp>
#include <vector>

namespace terse {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The 16-bit formats by their definition, in double: `fraction` bits, exponents from `lowest` to `highest`.
struct Format {
  int fraction;
  int lowest;
  int highest;

  double value(std::uint16_t bits) const {
    const int fraction_mask = (1 << fraction) - 1;
    const int exponent_mask = (1 << (15 - fraction)) - 1;
    const int exponent = (bits >> fraction) & exponent_mask;
    const double part = bits & fraction_mask;
    const double sign = (bits & 0x8000) ? -1.0 : 1.0;
    if (exponent == exponent_mask) return part == 0 ? sign * kInfinity : std::nan("");
    if (exponent == 0) return sign * std::ldexp(part, lowest - fraction);
    return sign * std::ldexp(part + (1 << fraction), exponent - 1 + lowest - fraction);
  }

  /// Rounds to nearest even by the definition: a whole number of last places, and infinity above the largest.
  double round(double v) const {
    if (v == 0 || !std::isfinite(v)) return v;
    const int exponent = std::max(std::ilogb(v), lowest);
    const double unit = std::ldexp(1.0, exponent - fraction);
    const double rounded = std::nearbyint(v / unit) * unit;  // exact in double; the default mode is to even
    return std::abs(rounded) >= std::ldexp(1.0, highest + 1) ? std::copysign(kInfinity, v) : rounded;
  }
};
constexpr Format kBinary16{10, -14, 15};
constexpr Format kBfloat16{7, -126, 127};

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

/// Every pattern, and around every pair of neighbours the tie and what is next to it.
template <class Half>
void check_format(const Format& format) {
  int checked = 0;
  for (int pattern = 0; pattern < 65536; ++pattern) {
    const auto bits = static_cast<std::uint16_t>(pattern);
    const double value = format.value(bits);
    const auto wide = static_cast<float>(Half::from_bits(bits));
    ASSERT_TRUE(same(wide, value)) << pattern;
    const Half back(wide);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(back))) << pattern;
      ASSERT_EQ(back.bits & 0x8000, bits & 0x8000);
      continue;
    }
    ASSERT_EQ(back.bits, bits);
    if (!std::isfinite(value)) continue;
    // the neighbour away from zero; beyond the largest, what would come next
    const double last = format.value(static_cast<std::uint16_t>(bits + 1));
    const double next =
        std::isfinite(last) ? last : std::copysign(std::ldexp(1.0, format.highest + 1), value);
    if (next > std::numeric_limits<float>::max() || -next > std::numeric_limits<float>::max()) continue;
    const auto tie = static_cast<float>((value + next) / 2);
    for (const float v : {std::nextafter(tie, 0.0f), tie, std::nextafter(tie, next > 0 ? 1e38f : -1e38f)}) {
      ASSERT_TRUE(same(static_cast<float>(Half(v)), format.round(v))) << pattern << " at " << v;
      ++checked;
    }
  }
  EXPECT_GT(checked, 150000);
}

TEST(Float16, EveryPatternAndEveryTie) { check_format<float16>(kBinary16); }
TEST(Bfloat16, EveryPatternAndEveryTie) { check_format<bfloat16>(kBfloat16); }

TEST(Float16, EdgesOfTheRange) {
  EXPECT_EQ(static_cast<float>(float16(65504.0f)), 65504.0f);
  EXPECT_EQ(static_cast<float>(float16(std::nextafter(65520.0f, 0.0f))), 65504.0f);
  EXPECT_TRUE(std::isinf(static_cast<float>(float16(65520.0f))));
  EXPECT_TRUE(std::isinf(static_cast<float>(float16(1e30f))));
  EXPECT_EQ(static_cast<float>(float16(0x1p-24f)), 0x1p-24f);
  EXPECT_EQ(float16(0x1p-25f).bits, 0) << "half the smallest subnormal is a tie to zero";
  EXPECT_EQ(float16(std::nextafter(0x1p-25f, 1.0f)).bits, 1);
  EXPECT_EQ(float16(-1e-30f).bits, 0x8000);
  EXPECT_EQ(float16(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TEST(Bfloat16, EdgesOfTheRange) {
  EXPECT_TRUE(std::isinf(static_cast<float>(bfloat16(std::numeric_limits<float>::max()))));
  EXPECT_EQ(bfloat16(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_EQ(bfloat16(-0.0f).bits, 0x8000);
  // a NaN whose payload lies in the lower half alone stays a NaN
  std::uint32_t bits = 0x7f800001;
  float nan;
  std::memcpy(&nan, &bits, sizeof nan);
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(nan))));
  bits = 0xffffffff;
  std::memcpy(&nan, &bits, sizeof nan);
  EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(nan))));
}

TEST(Types, NamesAndSizes) {
  struct Row {
    DType dtype;
    const char* text;
    std::size_t size;
    DType accumulator;
  };
  for (const auto& [dtype, text, size, accumulator] : {Row{DType::f32, "f32", 4, DType::f32},
                                                       {DType::f64, "f64", 8, DType::f64},
                                                       {DType::f16, "f16", 2, DType::f32},
                                                       {DType::bf16, "bf16", 2, DType::f32}}) {
    EXPECT_EQ(name(dtype), text);
    EXPECT_EQ(dtype_from(text), dtype);
    EXPECT_EQ(size_of(dtype), size);
    EXPECT_EQ(accumulator_of(dtype), accumulator);
  }
  EXPECT_EQ(name(Op::sum), "sum");
  EXPECT_EQ(name(Op::average), "average");
}

TEST(Types, UnknownNameIsRefusedWithTheList) {
  for (const char* text : {"", "f", "f8", "F32", "f32 ", "float", "bf16x"}) {
    try {
      dtype_from(text);
      FAIL() << "'" << text << "' is accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      const std::string what = error.what();
      for (const char* part : {"f32", "f64", "f16", "bf16"})
        EXPECT_NE(what.find(part), std::string::npos) << what;
      EXPECT_NE(what.find(text), std::string::npos) << what;
    }
  }
}

TEST(Types, ErrorCodesHaveNames) {
  struct Row {
    ErrorCode code;
    const char* text;
  };
  for (const auto& [code, text] :
       {Row{ErrorCode::invalid_argument, "invalid_argument"}, Row{ErrorCode::unsupported, "unsupported"},
        Row{ErrorCode::mismatch, "mismatch"}, Row{ErrorCode::corrupt_data, "corrupt_data"},
        Row{ErrorCode::non_finite, "non_finite"}, Row{ErrorCode::out_of_memory, "out_of_memory"},
        Row{ErrorCode::communication, "communication"}, Row{ErrorCode::invalid_state, "invalid_state"},
        Row{ErrorCode::device, "device"}}) {
    EXPECT_EQ(name(code), text);
    EXPECT_EQ(Error(code, "x").code(), code);
  }
}

TEST(Types, Views) {
  std::vector<double> values = {1, 2, 3, 4};
  const View all = view(values);
  EXPECT_EQ(all.dtype, DType::f64);
  EXPECT_EQ(all.bytes(), 32u);
  EXPECT_EQ(all.slice(1, 2).as<double>()[1], 3.0);
  const std::vector<bfloat16> halves(3);
  static_assert(std::is_same_v<decltype(view(halves)), ConstView>);
  EXPECT_EQ(view(halves).dtype, DType::bf16);
  EXPECT_EQ(view(halves).slice(2, 1).count, 1u);
  EXPECT_TRUE(ConstView().empty());
}

TEST(Version, IsThatOfTheHeaders) {
  EXPECT_EQ(version(), std::to_string(TERSE_VERSION_MAJOR) + "." + std::to_string(TERSE_VERSION_MINOR) + "." +
                           std::to_string(TERSE_VERSION_PATCH));
}

}  // namespace
}  // namespace terse
