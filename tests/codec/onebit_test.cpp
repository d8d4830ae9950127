// SPDX-License-Identifier: Apache-2.0
//
// What is special to onebit: signs, zeros, scales, and the bytes on the wire.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;

Bytes encode(const Codec& codec, const Tensor& values, View residual = {}) {
  Bytes message(codec.max_bytes(values.count(), values.dtype()));
  message.resize(codec.encode(values.view(), residual, message));
  return message;
}

Tensor decode(const Codec& codec, const Bytes& message, std::size_t count, DType dtype) {
  Tensor out(count, dtype);
  codec.decode(message, out.view());
  return out;
}

TEST(Onebit, BothZerosCountAsPositive) {
  const auto codec = make_codec("onebit:block=64");
  for (const DType dtype : kAllDTypes) {
    std::vector<double> values(70, 0.0);
    for (std::size_t i = 0; i < values.size(); i += 2) values[i] = -0.0;
    values[5] = -1;
    values[66] = 2;
    const Tensor got = decode(*codec, encode(*codec, Tensor(values, dtype)), 70, dtype);
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(std::signbit(got[i]), i == 5) << i;
    EXPECT_EQ(got[0], 1.0 / 64);
    EXPECT_NEAR(got[64], 2.0 / 6, unit_roundoff(dtype));
  }
}

TEST(Onebit, ZerosStayZero) {
  const auto codec = make_codec("onebit:block=24");
  for (const DType dtype : kAllDTypes) {
    Tensor residual(100, accumulator_of(dtype));
    const Bytes message = encode(*codec, Tensor(100, dtype), residual.view());
    const Tensor got = decode(*codec, message, 100, dtype);
    for (std::size_t i = 0; i < 100; ++i) {
      EXPECT_EQ(got[i], 0.0);
      EXPECT_EQ(residual[i], 0.0);
    }
  }
}

/// What is only just negative is negative.
TEST(Onebit, SignsOfTheSmallestValues) {
  const auto codec = make_codec("onebit:block=8");
  std::vector<double> values = {0x1p-149, -0x1p-149, 0x1p-126, -0x1p-126, 1, -1, 0, -0.0};
  Tensor got = decode(*codec, encode(*codec, Tensor(values, DType::f32)), 8, DType::f32);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(std::signbit(got[i]), values[i] < 0) << i;
  values = {0x1p-1074, -0x1p-1074, 1, -1, 1, -1, 1, -1};
  got = decode(*codec, encode(*codec, Tensor(values, DType::f64)), 8, DType::f64);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(std::signbit(got[i]), values[i] < 0) << i;
}

/// The last block counts the elements it has, not those it could have.
TEST(Onebit, ShortBlocksAreMeansOfTheirOwn) {
  const auto codec = make_codec("onebit:block=64");
  for (std::size_t count = 1; count <= 130; ++count) {
    const Tensor got = decode(*codec, encode(*codec, Tensor(std::vector<double>(count, -3.0), DType::f32)),
                              count, DType::f32);
    for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(got[i], -3.0) << count;
  }
}

TEST(Onebit, ScalesL1AndRms) {
  std::vector<double> values(64, 0.0);
  values[1] = 8;
  values[2] = -8;
  const Tensor input(values, DType::f32);
  EXPECT_EQ(std::abs(decode(*make_codec("onebit:block=64"), encode(*make_codec("onebit:block=64"), input), 64,
                            DType::f32)[0]),
            0.25);
  const auto rms = make_codec("onebit:block=64,scale=rms");
  EXPECT_NEAR(std::abs(decode(*rms, encode(*rms, input), 64, DType::f32)[0]), std::sqrt(2.0), 1e-6);
}

TEST(Onebit, ScalesKeepSmallAndLargeBlocks) {
  const auto codec = make_codec("onebit");
  for (const double size : {1e-30, 1e-10, 1e10, 1e34}) {
    auto values = normal_values(5000, DType::f32, 1, 0, size);
    double mean = 0;
    for (std::size_t i = 0; i < 2048; ++i) mean += std::abs(values[i]) / 2048;
    const Tensor got = decode(*codec, encode(*codec, Tensor(values, DType::f32)), 5000, DType::f32);
    EXPECT_NEAR(std::abs(got[0]) / mean, 1.0, 1e-5) << size;
  }
}

/// Bytes of a message by the formula: header, and for each block a scale and a bit an element.
TEST(Onebit, SizesByTheFormula) {
  for (const std::size_t block : {8u, 24u, 64u, 2048u}) {
    const auto codec = make_codec("onebit:block=" + std::to_string(block));
    for (const DType dtype : kAllDTypes) {
      for (const std::size_t count : {0u, 1u, 7u, 8u, 9u, 63u, 64u, 65u, 2047u, 2048u, 2049u, 99991u}) {
        const std::size_t blocks = (count + block - 1) / block;
        EXPECT_EQ(codec->max_bytes(count, dtype), 16 + blocks * size_of(dtype) + (count + 7) / 8)
            << block << " " << count;
      }
    }
  }
}

/// docs/wire-format.md, byte by byte: a change here is a new wire version.
TEST(Onebit, BytesOnTheWire) {
  const auto codec = make_codec("onebit:block=8");
  const std::vector<double> values = {1, -1, 1, 1, -1, 1, 1, -1, -2, 2, -2};
  const Bytes message = encode(*codec, Tensor(values, DType::f32));
  const std::vector<int> want = {'T', 'z', 1,    0,    0,    0, -1, -1, 11, 0, 0, 0, 0, 0, 0, 0,  // header
                                 0,   0,   0x80, 0x3f, 0x92,   // 1.0, bits 1, 4, 7
                                 0,   0,   0,    0x40, 0x05};  // 2.0, bits 0, 2
  ASSERT_EQ(message.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (want[i] < 0) continue;
    EXPECT_EQ(std::to_integer<int>(message[i]), want[i]) << "byte " << i;
  }
  const Bytes same = encode(*codec, Tensor(std::vector<double>{1}, DType::f32));
  EXPECT_TRUE(std::equal(message.begin() + 6, message.begin() + 8, same.begin() + 6)) << "the codec's tag";
  const Bytes other = encode(*make_codec("onebit:block=16"), Tensor(std::vector<double>{1}, DType::f32));
  EXPECT_FALSE(std::equal(message.begin() + 6, message.begin() + 8, other.begin() + 6));
  EXPECT_EQ(std::to_integer<int>(encode(*codec, Tensor(values, DType::bf16))[3]), 3) << "dtype";
}

/// Small terms are not lost beside a large sum, however long the block is.
TEST(Onebit, LongBlocksKeepTheirScale) {
  const std::size_t count = (std::size_t{1} << 24) + 3;
  const std::vector<float> values(count, 1.1f);
  for (const char* spec : {"onebit:deepspeed", "onebit:block=16777216,scale=rms", "onebit:block=16777216"}) {
    const auto codec = make_codec(spec);
    std::vector<std::byte> message(codec->max_bytes(count, DType::f32));
    message.resize(codec->encode(view(values), {}, message));
    std::vector<float> decoded(count);
    codec->decode(message, view(decoded));
    ASSERT_NEAR(decoded.front() / 1.1f, 1.0, 4e-6) << spec;
    ASSERT_TRUE(std::all_of(decoded.begin(), decoded.begin() + (1 << 24), [&](float x) {
      return x == decoded.front();
    })) << spec;
  }
}

}  // namespace
}  // namespace terse::test
