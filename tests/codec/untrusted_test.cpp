// SPDX-License-Identifier: Apache-2.0
//
// decode and bytes that no encoder wrote: an Error or numbers, never a byte outside the two spans.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
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

/// "corrupt_data", ..., or "" where it decodes. The message lies in memory of exactly its size.
std::string decode(const Codec& codec, Bytes message, std::size_t count, DType dtype,
                   Into into = Into::overwrite) {
  message.shrink_to_fit();
  Tensor out(count, dtype, 1);
  std::string outcome;
  try {
    codec.decode(message, out.view(), into, 0.5);
  } catch (const Error& error) {
    outcome = name(error.code());
    EXPECT_FALSE(std::string(error.what()).empty());
  }
  EXPECT_TRUE(out.guards_intact()) << "written outside the output";
  return outcome;
}

struct Case {
  std::shared_ptr<const Codec> codec;
  DType dtype;
  std::size_t count;
  Bytes message;

  std::string text() const {
    return codec->spec() + " of " + std::to_string(count) + " " + std::string(name(dtype));
  }
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      if (!codec->supports(dtype)) continue;
      for (const std::size_t count : {0u, 1u, 7u, 8u, 65u, 150u}) {
        Bytes message(codec->max_bytes(count, dtype));
        const Tensor values(normal_values(count, dtype, 1, 0), dtype);
        message.resize(codec->encode(values.view(), {}, message));
        list.push_back({codec, dtype, count, message});
      }
    }
  }
  return list;
}

TEST(Untrusted, EveryTruncationIsCorrupt) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    ASSERT_EQ(decode(*c.codec, c.message, c.count, c.dtype), "");
    for (std::size_t bytes = 0; bytes < c.message.size(); ++bytes) {
      const Bytes cut(c.message.begin(), c.message.begin() + static_cast<std::ptrdiff_t>(bytes));
      ASSERT_EQ(decode(*c.codec, cut, c.count, c.dtype), "corrupt_data") << bytes << " bytes";
      ASSERT_FALSE(bytes < 16 && is_flagged(cut));
    }
    for (const std::size_t more : {1u, 8u, 100u}) {
      Bytes longer = c.message;
      longer.resize(longer.size() + more);
      ASSERT_EQ(decode(*c.codec, longer, c.count, c.dtype), "corrupt_data") << more << " bytes too many";
    }
  }
}

/// Of the header only the flags may change what a message means, and only to something that is refused too.
TEST(Untrusted, EveryFlippedHeaderBitIsSeen) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    for (std::size_t bit = 0; bit < 16 * 8; ++bit) {
      Bytes message = c.message;
      message[bit / 8] ^= std::byte{1} << (bit % 8);
      const std::string outcome = decode(*c.codec, message, c.count, c.dtype);
      // no elements of f16 are as good as none of f32; and zfp's payloads of f16 are of f32 all the same
      const bool either = c.count == 0 || c.codec->name() == "zfp";
      if (either && bit / 8 == 3 && outcome.empty()) continue;
      EXPECT_TRUE(outcome == "corrupt_data" || (outcome == "non_finite" && bit / 8 == 4))
          << "bit " << bit % 8 << " of byte " << bit / 8 << ": " << (outcome.empty() ? "accepted" : outcome);
    }
  }
}

TEST(Untrusted, FlippedPayloadBitsDecodeOrAreCorrupt) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    for (std::size_t bit = 16 * 8; bit < c.message.size() * 8; ++bit) {
      Bytes message = c.message;
      message[bit / 8] ^= std::byte{1} << (bit % 8);
      const std::string outcome = decode(*c.codec, message, c.count, c.dtype);
      EXPECT_TRUE(outcome.empty() || outcome == "corrupt_data") << outcome;
    }
  }
}

TEST(Untrusted, RandomBytes) {
  std::mt19937_64 random(7);
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    for (int round = 0; round < 200; ++round) {
      Bytes message(random() % 80);
      for (std::byte& b : message) b = static_cast<std::byte>(random());
      EXPECT_NE(decode(*c.codec, message, c.count, c.dtype), "") << "random bytes are a message";
      is_flagged(message);
      // a true header and anything behind it, of the right length or not
      message = c.message;
      if (round % 2 == 0) message.resize(16 + random() % 80);
      for (std::size_t i = 16; i < message.size(); ++i) message[i] = static_cast<std::byte>(random());
      const std::string outcome = decode(*c.codec, message, c.count, c.dtype, Into::add);
      EXPECT_TRUE(outcome.empty() || outcome == "corrupt_data") << outcome;
    }
  }
}

TEST(Untrusted, OtherCountsTypesAndCodecsAreRefused) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    for (const std::size_t count : {c.count + 1, c.count + 8, c.count / 2, std::size_t{1000}}) {
      if (count == c.count) continue;
      EXPECT_EQ(decode(*c.codec, c.message, count, c.dtype), "corrupt_data") << count;
    }
    for (const DType dtype : kAllDTypes) {
      if (dtype == c.dtype || dtype == accumulator_of(c.dtype)) continue;
      EXPECT_EQ(decode(*c.codec, c.message, c.count, dtype), "corrupt_data") << name(dtype);
    }
    for (const std::string& spec : all_specs()) {
      const auto other = make_codec(spec);
      if (other->spec() == c.codec->spec()) continue;
      EXPECT_EQ(decode(*other, c.message, c.count, c.dtype), "corrupt_data") << spec;
    }
  }
}

/// A scale that no encoder writes must not come out as numbers.
TEST(Untrusted, OnebitScalesAreFiniteAndPositive) {
  const auto codec = make_codec("onebit:block=8");
  Bytes message(codec->max_bytes(8, DType::f32));
  codec->encode(Tensor(std::vector<double>(8, 1.0), DType::f32).view(), {}, message);
  for (const float scale : {-1.0f, std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
    std::memcpy(message.data() + 16, &scale, sizeof scale);
    EXPECT_EQ(decode(*codec, message, 8, DType::f32), "corrupt_data") << scale;
  }
}

/// undo takes messages from this rank's own encoder, but must not run away with foreign bytes either.
TEST(Untrusted, UndoChecksToo) {
  for (const Case& c : cases()) {
    if (c.codec->traits().lossless || c.count == 0) continue;
    SCOPED_TRACE(c.text());
    const Tensor values(c.count, c.dtype);
    Tensor residual(c.count, accumulator_of(c.dtype));
    for (std::size_t bytes = 0; bytes < c.message.size(); bytes += 5) {
      Bytes cut(c.message.begin(), c.message.begin() + static_cast<std::ptrdiff_t>(bytes));
      cut.shrink_to_fit();
      EXPECT_THROW(c.codec->undo(cut, values.view(), residual.view()), Error) << bytes;
      EXPECT_TRUE(residual.guards_intact());
    }
  }
}

}  // namespace
}  // namespace terse::test
