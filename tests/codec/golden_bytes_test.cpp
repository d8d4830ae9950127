// SPDX-License-Identifier: Apache-2.0
//
// Payloads worked out by hand from the layouts that docs/wire-format.md has: what is written today must be
// read for as long as the wire version is the same.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <terse/codec.hpp>
#include <vector>

namespace terse::test {
namespace {

struct GoldenBytes {
  const char* spec;
  std::vector<float> values;
  std::vector<std::uint8_t> payload;
  std::vector<float> decoded;
};

std::vector<std::uint8_t> bytes(std::vector<std::uint8_t> first, std::size_t n, std::uint8_t rest) {
  first.insert(first.end(), n, rest);
  return first;
}

std::vector<GoldenBytes> all() {
  std::vector<GoldenBytes> list;
  const float seventh = 1.0f / 7;
  list.push_back({"quant:bits=4,range=symmetric,block=64",
                  {1, -1, 0.4f, 0, 0.26f},
                  // the scale 1 / 7; codes 14, 0, 10, 7, 9, behind them 7
                  bytes({0x25, 0x49, 0x12, 0x3e, 0x7e, 0x70, 0x7a, 0x77, 0x79}, 27, 0x77),
                  {7 * seventh, -7 * seventh, 3 * seventh, 0, 2 * seventh}});
  const float step = 1.0f / 31;
  auto six =
      bytes({0x08, 0x21, 0x04, 0x3d, 0xfe, 0xc0, 0xeb, 0xdf, 0xe7}, 27, 0xdf);  // codes 62, 0, 43, 31, 39
  six.insert(six.end(), 16, 0x5f);
  list.push_back({"quant:bits=6,range=symmetric,block=64",
                  {1, -1, 0.4f, 0, 0.26f},
                  six,
                  {31 * step, -31 * step, 12 * step, 0, 8 * step}});
  list.push_back({"quant:bits=2,block=64",
                  {2, -1, 0.4f, 0, 1.2f},
                  // the scale 1, the code of zero 1; codes 3, 0, 1, 1, 2, behind them 1
                  bytes({0x00, 0x00, 0x80, 0x3f, 1, 0x57, 0x54, 0x55, 0x55, 0x56}, 11, 0x55),
                  {2, -1, 0, 0, 1}});
  const float wide = 2.0f / 255 + 1.0f / 255;
  list.push_back({"quant:block=64",
                  {2, -1, 0.4f, 0, 1.2f},
                  // the scale 3 / 255, the code of zero 85; codes 255, 0, 119, 85, 187
                  bytes({0xc2, 0xc0, 0x40, 0x3c, 85, 255, 0, 119, 85, 187}, 59, 85),
                  {170 * wide, -85 * wide, 34 * wide, 0, 102 * wide}});
  list.push_back(
      {"ternary:block=64",
       {1, -1, 0.4f, 0, 0.26f},
       // the scale 0.8, of those from 0.7 * 0.532 on; digits 2, 0, 2, 1, 1, behind them 1, but no 65th
       {0xcd, 0xcc, 0x4c, 0x3f, 122, 120, 122, 121, 121, 121, 121, 121, 121, 121, 121, 121, 40},
       {0.8f, -0.8f, 0.8f, 0, 0}});
  list.push_back(
      {"natural:block=64",
       {1, -2, 0.25f, 0, 8},
       // the largest may be rounded up to 16, field 131; powers of two stay: 127 - 4, -3, -6 and -1
       bytes({131, 0, 123, 128 + 124, 121, 0, 126}, 59, 0),
       {1, -2, 0.25f, 0, 8}});
  list.push_back({"sum8:block=64",
                  {127, -64, 0.5f, 1.5f, -1},
                  // a step is 1, halves go to the even code
                  bytes({0, 0, 0xfe, 0x42, 0x7f, 0xc0, 0, 2, 0xff}, 59, 0),
                  {127, -64, 0, 2, -1}});
  std::vector<float> nibbles(34);
  nibbles[0] = -3;
  nibbles[1] = 7;
  nibbles[2] = -1;
  nibbles[32] = 2;
  nibbles[33] = -7;
  list.push_back({"sum4:block=64",
                  nibbles,
                  // -3 + 16 * 2, 7 - 16 * 7 and -1
                  bytes({0, 0, 0xe0, 0x40, 29, 0x97, 0xff}, 29, 0),
                  nibbles});
  list.push_back({"randomk:ratio=0.5,block=8",
                  {1, 2, 3, 4, 5, 6, 7, 8},
                  // of each two one, by the highest bit of Philox's words for zeros, 6627e8d5 e169c58d
                  // bc57ac4c 9b00dbd8; call 0, position 0
                  bytes({0, 0, 0x80, 0x3f, 0, 0, 0x80, 0x40, 0, 0, 0xc0, 0x40, 0, 0, 0, 0x41}, 16, 0),
                  {1, 0, 0, 4, 0, 6, 0, 8}});
  list.push_back({"hadamard:block=16+onebit:block=8",
                  {-4, 2, 1, 1, -12},
                  // the signs are - - - + +, five elements are four and one; 1, 2, 1, 4 and -12 are encoded
                  {0x00, 0x00, 0x80, 0x40, 0x10},
                  {-8, 0, 0, 0, -4}});
  // sign, four bits of exponent with a bias of 7, three of fraction; 0.001 is half of the least, 2^-9, and
  // more
  list.push_back({"cast:f8e4m3",
                  {1, -448, 1.0625f, 0, 0.001f, 0.0177f},
                  {0x38, 0xfe, 0x38, 0x00, 0x01, 0x09},
                  {1, -448, 1, 0, 0x1p-9f, 0x1.2p-6f}});
  // five of exponent with a bias of 15, two of fraction
  list.push_back({"cast:f8e5m2",
                  {1, -57344, 1.125f, -0.375f, 0x1p-17f, 0x1p-16f},
                  {0x3c, 0xfb, 0x3c, 0xb6, 0x00, 0x01},
                  {1, -57344, 1, -0.375f, 0, 0x1p-16f}});
  return list;
}

TEST(GoldenBytes, OfEachCodec) {
  for (const GoldenBytes& golden : all()) {
    SCOPED_TRACE(golden.spec);
    const auto codec = make_codec(golden.spec);
    const std::size_t count = golden.values.size();
    std::vector<std::byte> message(codec->max_bytes(count, DType::f32));
    message.resize(codec->encode(view(std::span(golden.values)), {}, message));
    std::vector<std::uint8_t> payload;
    for (std::size_t i = 16; i < message.size(); ++i)
      payload.push_back(std::to_integer<std::uint8_t>(message[i]));
    EXPECT_EQ(payload, golden.payload);
    ASSERT_EQ(message.size(), 16 + golden.payload.size());
    for (std::size_t i = 0; i < golden.payload.size(); ++i) message[16 + i] = std::byte{golden.payload[i]};
    std::vector<float> decoded(count);
    codec->decode(message, view(std::span(decoded)));
    EXPECT_EQ(decoded, golden.decoded);
  }
}

}  // namespace
}  // namespace terse::test
