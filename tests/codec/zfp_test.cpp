// SPDX-License-Identifier: Apache-2.0
//
// zfp beyond what every codec is tested for: errors and sizes, the ends of the range, and bytes that no
// encoder wrote.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kHeader = 16;

class Zfp : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_row("zfp")) GTEST_SKIP() << "this build has no zfp";
  }
};

Bytes encode(const Codec& codec, const Tensor& values, DType as) {
  Bytes message(codec.max_bytes(values.count(), as));
  message.resize(codec.encode(values.view(), {}, message, as));
  return message;
}

Tensor decode(const Codec& codec, const Bytes& message, std::size_t count, DType dtype) {
  Tensor out(count, dtype);
  codec.decode(message, out.view());
  return out;
}

double largest_of(const std::vector<double>& values) {
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

/// Below how many times its accuracy zfp resolves all values, so that nothing is resent uncompressed.
double resolved(DType dtype) { return accumulator_of(dtype) == DType::f64 ? 0x1p44 : 0x1p16; }

/// Of a smooth field and of noise, in every type, in magnitudes from far below the bound to far above it: an
/// error within the bound, or a flag.
TEST_F(Zfp, AccuracyIsABound) {
  int held = 0;
  for (const double accuracy : {0x1p-20, 0x1p-10, 0.125, 1.0, 64.0}) {
    const auto codec = make_codec("zfp:accuracy=" + std::to_string(accuracy));
    for (const DType dtype : kAllDTypes) {
      for (const double size : {0x1p-24, 0x1p-12, 0x1p-4, 1.0, 256.0, 4096.0}) {
        for (const bool smooth : {false, true}) {
          SCOPED_TRACE(codec->spec() + " of " + std::string(name(dtype)) + ", " + std::to_string(size));
          std::vector<double> input = normal_values(10001, dtype, 1, 0, size);
          for (std::size_t i = 0; i < input.size() && smooth; ++i) {
            input[i] = round_to(size * std::sin(0.01 * static_cast<double>(i)), dtype);
          }
          const Tensor values(input, dtype);
          const Bytes message = encode(*codec, values, dtype);
          if (is_flagged(message)) {
            ASSERT_GE(largest_of(input), resolved(dtype) * accuracy);
            continue;
          }
          ++held;
          const Tensor decoded = decode(*codec, message, values.count(), dtype);
          const Expected want = expected_decode(*codec, input, dtype);
          for (std::size_t i = 0; i < input.size(); ++i) {
            ASSERT_LE(std::abs(decoded[i] - input[i]), want.slack[i]) << i;
          }
        }
      }
    }
  }
  EXPECT_GE(held, 200);
}

/// Among small values one in four that is 2^k times the accuracy: the small ones keep to it, or the message
/// is flagged, which it is neither always nor never.
TEST_F(Zfp, AccuracyHoldsBesideLargeNeighbours) {
  const auto codec = make_codec("zfp:accuracy=0.001");
  const double accuracy = 0x1p-10;
  std::mt19937_64 random(7);
  for (const DType dtype : {DType::f32, DType::f64}) {
    const int beyond = dtype == DType::f64 ? 66 : 30;
    int flagged = 0;
    for (int k = -2; k <= beyond; ++k) {
      std::vector<double> input(4099);
      for (std::size_t i = 0; i < input.size(); ++i) {
        const double v = static_cast<double>(random() % 2001) / 1000.0 - 1;
        input[i] = round_to(i % 4 == random() % 4 ? std::ldexp(v, k) * accuracy : 8 * v * accuracy, dtype);
      }
      const Tensor values(input, dtype);
      const Bytes message = encode(*codec, values, dtype);
      if (is_flagged(message)) {
        EXPECT_GE(largest_of(input), resolved(dtype) * accuracy) << k;
        ++flagged;
        continue;
      }
      const Tensor decoded = decode(*codec, message, values.count(), dtype);
      for (std::size_t i = 0; i < input.size(); ++i) {
        ASSERT_LE(std::abs(decoded[i] - input[i]), accuracy) << k << ", " << i;
      }
    }
    EXPECT_GE(flagged, 2) << name(dtype);
    EXPECT_LE(flagged, beyond / 2) << name(dtype);
  }
}

/// Exactly so many bits an element, and errors that fall as they rise.
TEST_F(Zfp, RateIsASize) {
  const std::size_t count = 10000;
  const Tensor values(normal_values(count, DType::f32, 1, 0), DType::f32);
  const Tensor wide(normal_values(count, DType::f64, 1, 0), DType::f64);
  double before = 1;
  for (const double rate : {4.0, 4.25, 5.5, 8.0, 12.0, 16.0, 24.0, 32.0}) {
    SCOPED_TRACE(rate);
    const auto codec = make_codec("zfp:rate=" + std::to_string(rate));
    EXPECT_TRUE(codec->traits().fixed_size);
    const auto block_bits = static_cast<std::size_t>(4 * rate);
    EXPECT_EQ(codec->traits().block * block_bits / 4 % 8, 0u) << "blocks end on a byte";
    for (const std::size_t n : {1u, 4u, 5u, 63u, 4096u, 4097u, 10000u}) {
      EXPECT_EQ(codec->max_bytes(n, DType::f32), kHeader + ((n + 3) / 4 * block_bits + 7) / 8);
    }
    const Bytes message = encode(*codec, values, DType::f32);
    EXPECT_EQ(message.size(), codec->max_bytes(count, DType::f32));
    const Tensor decoded = decode(*codec, message, count, DType::f32);
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < count; ++i) {
      error += std::pow(decoded[i] - values[i], 2);
      size += std::pow(values[i], 2);
    }
    error = std::sqrt(error / size);
    EXPECT_LT(error, before);
    before = error;
    if (rate == 8) {
      EXPECT_LT(error, 0.06);
    }
    if (rate == 16) {
      EXPECT_LT(error, 3e-4);
    }
    EXPECT_EQ(encode(*codec, wide, DType::f64).size(), message.size());
  }
  EXPECT_LT(before, 1e-6);
}

/// Where the type's range ends: flagged, or finite. And far below one, where zfp's own scaling overflows.
TEST_F(Zfp, WhatIsDecodedIsFinite) {
  for (const char* spec : {"zfp:rate=4", "zfp:rate=8", "zfp:rate=5.25", "zfp:rate=32", "zfp:accuracy=1e-6",
                           "zfp:accuracy=1e10", "zfp:accuracy=1e30"}) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      const double most = dtype == DType::f16    ? 65504.0
                          : dtype == DType::bf16 ? 0x1.FEp127
                          : dtype == DType::f32  ? double{std::numeric_limits<float>::max()}
                                                 : std::numeric_limits<double>::max();
      for (const double size : {most, most / 2, most / 8, most / 64}) {
        SCOPED_TRACE(std::string(spec) + " of " + std::string(name(dtype)) + ", " + std::to_string(size));
        std::mt19937_64 random(1);
        std::size_t flagged = 0;
        for (int round = 0; round < 200; ++round) {
          std::vector<double> input(5);
          for (double& v : input) v = size * std::uniform_real_distribution(-1.0, 1.0)(random);
          input[static_cast<std::size_t>(round) % 5] = round % 2 == 0 ? size : -size;
          const Bytes message = encode(*codec, Tensor(input, dtype), dtype);
          flagged += is_flagged(message);
          if (is_flagged(message)) continue;
          const Tensor out = decode(*codec, message, 5, dtype);
          for (std::size_t i = 0; i < 5; ++i) ASSERT_TRUE(std::isfinite(out[i])) << out[i];
        }
        const auto at = std::string(spec).find("accuracy=");
        const double accuracy =
            at == std::string::npos ? most : std::stod(spec + at + std::strlen("accuracy="));
        if (size < most / 4 && size < resolved(dtype) * accuracy / 2) {
          EXPECT_EQ(flagged, 0u) << "far from the end of the range";
        }
      }
      // tiny numbers: what comes out is no larger than four times what went in, or than what is dropped
      const double least = dtype == DType::f64 ? 0x1p-1074 : dtype == DType::f16 ? 0x1p-24 : 0x1p-133;
      for (const double size : {least, 1000 * least, 0x1p-126, 0x1p-100, 0x1p-98, 0x1p-97, 0x1p-90}) {
        if (size < least) continue;
        const Tensor values(std::vector<double>{size, -size / 2, size / 4, 0, size}, dtype);
        const Tensor out = decode(*codec, encode(*codec, values, dtype), 5, dtype);
        for (std::size_t i = 0; i < 5; ++i) ASSERT_LE(std::abs(out[i]), 4 * size) << spec << " " << size;
      }
    }
  }
}

/// Sums that are beyond the tensor's type, though the accumulator holds them.
TEST_F(Zfp, SumsBeyondTheTensorsTypeAreFlagged) {
  for (const char* spec : {"zfp:rate=16", "zfp:accuracy=0.001"}) {
    const auto codec = make_codec(spec);
    for (const auto& [sum, good] : {std::pair{60000.0, true}, std::pair{65519.0, true},
                                    std::pair{65537.0, false}, std::pair{1e9, false}}) {
      const Tensor values(std::vector<double>{1, sum, 1}, DType::f32);
      const Bytes message = encode(*codec, values, DType::f16);
      if (!good) {
        EXPECT_TRUE(is_flagged(message)) << spec << " " << sum;
      } else if (!is_flagged(message)) {
        EXPECT_TRUE(std::isfinite(decode(*codec, message, 3, DType::f16)[1]));
      }
    }
  }
}

/// The first version's bytes. Each block begins with a 1 and 127 + the exponent: 2^3 > 4, 2^1 > 1.
TEST_F(Zfp, GoldenRate) {
  const auto codec = make_codec("zfp:rate=8");
  const Bytes message =
      encode(*codec, Tensor(std::vector<double>{1, 2, 3, 4, -1, 0.5}, DType::f32), DType::f32);
  std::string hex;
  for (std::size_t i = kHeader; i < message.size(); ++i) {
    for (const unsigned digit :
         {std::to_integer<unsigned>(message[i] >> 4), std::to_integer<unsigned>(message[i]) & 15})
      hex += "0123456789abcdef"[digit];
  }
  EXPECT_EQ(hex, "05310b0001258202");
}

/// Any payload: numbers that are finite, or an error.
TEST_F(Zfp, AnyBytesAreFiniteNumbersOrCorrupt) {
  std::mt19937_64 random(3);
  for (const char* spec :
       {"zfp:rate=4", "zfp:rate=8", "zfp:rate=32", "zfp:accuracy=1e-20", "zfp:accuracy=1"}) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      for (const std::size_t count : {1u, 4u, 100u, 4096u, 5000u}) {
        const Tensor values(normal_values(count, dtype, 1, 0), dtype);
        const Bytes good = encode(*codec, values, dtype);
        for (int round = 0; round < 20; ++round) {
          Bytes message = good;
          if (!codec->traits().fixed_size) message.resize(kHeader + random() % (40 * count));
          message.shrink_to_fit();
          const bool ones = round % 4 == 0;
          for (std::size_t i = kHeader; i < message.size(); ++i) {
            message[i] = ones ? std::byte{0xFF} : static_cast<std::byte>(random());
          }
          try {
            const Tensor out = decode(*codec, message, count, dtype);
            for (std::size_t i = 0; i < count; ++i)
              ASSERT_TRUE(std::isfinite(out[i])) << spec << " " << out[i];
          } catch (const Error& error) {
            ASSERT_EQ(error.code(), ErrorCode::corrupt_data) << error.what();
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
