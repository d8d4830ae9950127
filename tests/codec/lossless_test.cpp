// SPDX-License-Identifier: Apache-2.0
//
// lossless beyond what every codec is tested for: all bits of any element, sizes, frames that no encoder
// wrote, and what it does to another codec's messages.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "codec/shuffle.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kHeader = 16;
constexpr std::size_t kUnit = 131072;

class LosslessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_row("lossless")) GTEST_SKIP() << "this build has no zstd";
  }
};
using Lossless = LosslessTest;

Bytes random_bytes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

ConstView elements(const Bytes& bytes, DType dtype) {
  return {bytes.data(), bytes.size() / size_of(dtype), dtype};
}

Bytes encode(const Codec& codec, ConstView values) {
  Bytes message(codec.max_bytes(values.count, values.dtype));
  message.resize(codec.encode(values, {}, message));
  return message;
}

Bytes decode(const Codec& codec, const Bytes& message, std::size_t count, DType dtype) {
  Bytes out(count * size_of(dtype));
  codec.decode(message, View{out.data(), count, dtype});
  return out;
}

std::string outcome_of(const Codec& codec, Bytes message, std::size_t count, DType dtype) {
  message.shrink_to_fit();
  try {
    decode(codec, message, count, dtype);
  } catch (const Error& error) {
    return std::string(name(error.code()));
  }
  return "";
}

template <class... Numbers>
Bytes bytes_of(Numbers... numbers) {
  return {static_cast<std::byte>(numbers)...};
}

Bytes payload_of(const Bytes& message) {
  const auto payload = std::span(message).subspan(kHeader);
  return {payload.begin(), payload.end()};
}

Bytes with_payload(const Bytes& message, const Bytes& payload) {
  Bytes other = message;
  other.resize(kHeader);
  other.insert(other.end(), payload.begin(), payload.end());
  return other;
}

TEST(Shuffle, PutsEachByteInItsPlaneAndBack) {
  for (const std::size_t width : {1u, 2u, 4u, 8u}) {
    for (const std::size_t count : {0u, 1u, 15u, 16u, 17u, 63u, 64u, 65u, 511u, 512u, 513u, 1300u}) {
      SCOPED_TRACE(std::to_string(width) + " bytes, " + std::to_string(count));
      Bytes from = random_bytes(count * width + 1, count);
      from.erase(from.begin());
      Bytes planes(count * width);
      shuffle(from.data(), count, width, planes.data());
      for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t k = 0; k < width; ++k) ASSERT_EQ(planes[k * count + i], from[i * width + k]);
      }
      std::array<const std::byte*, kMostPlanes> at{};
      for (std::size_t k = 0; k < width; ++k) at[k] = planes.data() + k * count;
      Bytes back(count * width);
      unshuffle(at, count, width, back.data());
      EXPECT_EQ(back, from);
    }
  }
}

/// Any bits whatever are elements: NaNs of all kinds, denormals, both zeros. And across units.
TEST_F(Lossless, EveryBitSurvives) {
  for (const char* spec : {"lossless", "lossless:level=3", "lossless:level=19"}) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      for (const std::size_t count : {1u, 2u, 100u, 5003u, 140000u}) {
        if (count > 10000 && std::string(spec) == "lossless:level=19") continue;
        SCOPED_TRACE(std::string(spec) + " " + std::to_string(count) + " " + std::string(name(dtype)));
        const Bytes any = random_bytes(count * size_of(dtype), count);
        EXPECT_EQ(decode(*codec, encode(*codec, elements(any, dtype)), count, dtype), any);
        // half of each element's bytes random: planes of both kinds
        Bytes half = any;
        for (std::size_t i = 0; i < half.size(); ++i) {
          if (i % size_of(dtype) >= size_of(dtype) / 2) half[i] = std::byte{0x7F};
        }
        const Bytes message = encode(*codec, elements(half, dtype));
        EXPECT_EQ(decode(*codec, message, count, dtype), half);
        if (count > 5000) {
          EXPECT_LT(message.size(), half.size() * 6 / 10);
        }
      }
    }
  }
}

TEST_F(Lossless, SizesAreBounded) {
  const auto codec = make_codec("lossless");
  for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, kUnit, kUnit + 1, 2 * kUnit + 77}) {
    const std::size_t units = (count + kUnit - 1) / kUnit;
    const std::size_t most = kHeader + 4 * count + units;
    EXPECT_EQ(codec->max_bytes(count, DType::f32), most);
    // what does not compress is stored
    const Bytes any = random_bytes(4 * count, 1);
    EXPECT_EQ(encode(*codec, elements(any, DType::f32)).size(), most);
    // zeros are next to nothing
    EXPECT_LT(encode(*codec, elements(Bytes(4 * count), DType::f32)).size(),
              std::min(most + 1, kHeader + 120 * units));
  }
  // sign and exponent of normally distributed numbers say less than they have bits
  const Tensor normal(normal_values(50000, DType::f32, 1, 0), DType::f32);
  EXPECT_LT(encode(*codec, normal.view()).size(), 50000u * 4 * 9 / 10);
}

/// The first version's bytes, as docs/wire-format.md has them.
TEST_F(Lossless, GoldenPlainForm) {
  const auto codec = make_codec("lossless");
  const Tensor values(std::vector<double>{1.0, -2.5}, DType::f32);
  const Bytes message = encode(*codec, values.view());
  EXPECT_EQ(payload_of(message), bytes_of(0, 0x00, 0x00, 0x80, 0x3F, 0x00, 0x00, 0x20, 0xC0));
}

// A frame of zstd 1.5 for 64 bytes of 7.
const Bytes& frame_of_sevens() {
  static const Bytes frame = bytes_of(0x28, 0xB5, 0x2F, 0xFD, 0x20, 0x40, 0x45, 0x00, 0x00, 0x10, 0x07, 0x07,
                                      0x01, 0x00, 0x93, 0x00, 0x16);
  return frame;
}

Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

/// 64 elements of f16: low bytes of 7 from a frame, high bytes as they are.
Bytes sevens_in_planes(const Bytes& frame) {
  return joined({bytes_of(1), bytes_of(frame.size(), frame.size() >> 8, 0, 0), frame, bytes_of(64, 0, 0, 0),
                 Bytes(64, std::byte{9})});
}

TEST_F(Lossless, GoldenPlanesDecode) {
  const auto codec = make_codec("lossless");
  const Bytes message = encode(*codec, elements(Bytes(128), DType::f16));
  Bytes want;
  want.reserve(128);
  for (std::size_t i = 0; i < 128; ++i)
    want.push_back(std::byte{i % 2 == 0 ? std::uint8_t{7} : std::uint8_t{9}});
  EXPECT_EQ(decode(*codec, with_payload(message, sevens_in_planes(frame_of_sevens())), 64, DType::f16), want);
}

/// Frames that give other than what is due, whatever they say of themselves.
TEST_F(Lossless, FramesThatNoEncoderWroteAreCorrupt) {
  const auto codec = make_codec("lossless");
  const Bytes message = encode(*codec, elements(Bytes(128), DType::f16));
  const Bytes& frame = frame_of_sevens();
  const auto outcome = [&](const Bytes& payload) {
    return outcome_of(*codec, with_payload(message, payload), 64, DType::f16);
  };
  ASSERT_EQ(outcome(sevens_in_planes(frame)), "");
  for (std::size_t bytes = 0; bytes < frame.size(); ++bytes) {
    EXPECT_EQ(outcome(sevens_in_planes({frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(bytes)})),
              "corrupt_data")
        << bytes;
  }
  for (std::size_t bit = 0; bit < 8 * frame.size(); ++bit) {
    Bytes flipped = frame;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    const std::string said = outcome(sevens_in_planes(flipped));
    EXPECT_TRUE(said.empty() || said == "corrupt_data") << said;
  }
  // bytes behind it; another frame, and one to be skipped, which zstd would pass over
  const Bytes skippable = bytes_of(0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 0);
  EXPECT_EQ(outcome(sevens_in_planes(joined({frame, bytes_of(0)}))), "corrupt_data");
  EXPECT_EQ(outcome(sevens_in_planes(joined({frame, skippable}))), "corrupt_data");
  EXPECT_EQ(outcome(sevens_in_planes(joined({skippable, frame}))), "corrupt_data");
  // sizes that it claims: 63, and 2^62 with a window of as much, 2 GiB
  Bytes other = frame;
  other[5] = std::byte{63};
  EXPECT_EQ(outcome(sevens_in_planes(other)), "corrupt_data");
  const Bytes rest(frame.begin() + 6, frame.end());
  const Bytes huge =
      joined({Bytes(frame.begin(), frame.begin() + 4), bytes_of(0xE0, 0, 0, 0, 0, 0, 0, 0, 0x40), rest});
  EXPECT_EQ(outcome(sevens_in_planes(huge)), "corrupt_data");
  const Bytes wide = joined({Bytes(frame.begin(), frame.begin() + 4), bytes_of(0x00, 0xA8), rest});
  EXPECT_EQ(outcome(sevens_in_planes(wide)), "corrupt_data");
  // lengths that lead out of the payload, and a form that there is not
  EXPECT_EQ(outcome(joined({bytes_of(1, 255, 255, 255, 255), frame})), "corrupt_data");
  EXPECT_EQ(outcome(joined({bytes_of(1, 65, 0, 0, 0), Bytes(200)})), "corrupt_data");
  EXPECT_EQ(outcome(joined({bytes_of(1, 0, 0, 0, 0), Bytes(68)})), "corrupt_data");
  EXPECT_EQ(outcome(joined({bytes_of(2), Bytes(128)})), "corrupt_data");
  EXPECT_EQ(outcome({}), "corrupt_data");
}

/// What another codec's message says stays as it is, with and without feedback, and gets shorter where it
/// repeats itself.
TEST_F(Lossless, BehindAnotherCodecChangesNothingButTheBytes) {
  std::vector<std::string> inner = {"onebit:block=64", "cast:bf16", "cast:f16", "onebit"};
  if (has_row("zfp")) inner.insert(inner.end(), {"zfp:rate=8", "zfp:accuracy=0.001"});
  for (const std::string& spec : inner) {
    SCOPED_TRACE(spec);
    const auto plain = make_codec(spec);
    const auto packed = make_codec(spec + "+lossless");
    EXPECT_EQ(packed->name(), "lossless");
    EXPECT_EQ(packed->spec(), plain->spec() + "+lossless:level=1");
    const CodecTraits& traits = packed->traits();
    EXPECT_FALSE(traits.fixed_size || traits.summable || traits.lossless);
    EXPECT_EQ(traits.contractive, plain->traits().contractive);
    EXPECT_EQ(traits.block, plain->traits().block);
    EXPECT_EQ(traits.error_bound, plain->traits().error_bound);
    EXPECT_FALSE(packed->supports(Memory::cuda));
    for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, 2 * kUnit + 77}) {
      std::vector<double> values = normal_values(count, DType::f32, 1, 0);
      for (std::size_t i = 0; i < count; ++i) {
        if (i / 64 % 4 != 0) values[i] = 0.5;
      }
      const Tensor v(values, DType::f32);
      Tensor residual(normal_values(count, DType::f32, 2, 0, 0.01), DType::f32);
      Tensor same = residual;
      for (const bool feedback : {false, true}) {
        Bytes a(plain->max_bytes(count, DType::f32));
        Bytes b(packed->max_bytes(count, DType::f32));
        a.resize(plain->encode(v.view(), feedback ? residual.view() : View{}, a));
        b.resize(packed->encode(v.view(), feedback ? same.view() : View{}, b));
        EXPECT_EQ(decode(*packed, b, count, DType::f32), decode(*plain, a, count, DType::f32));
        EXPECT_TRUE(same.same_bits(residual));
        if (count > 1000 && !feedback) {
          EXPECT_LT(b.size(), a.size() * 3 / 4);
        }
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
