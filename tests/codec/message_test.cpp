// SPDX-License-Identifier: Apache-2.0
//
// A message is bound to its place, with and without a seal.
#include "codec/message.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kCount = 100;

const Codec& codec() {
  static const auto made = make_codec("onebit:block=24");
  return *made;
}

Bytes message_for(std::uint64_t place, Sealed sealed) {
  Bytes bytes(codec().max_bytes(kCount, DType::f32) + kTrailerBytes);
  const Tensor values(normal_values(kCount, DType::f32, 1, 0), DType::f32);
  const std::size_t encoded = codec().encode(values.view(), {}, bytes);
  bytes.resize(seal(bytes, encoded, place, sealed));
  return bytes;
}

/// "" where it opens.
std::string open(const Bytes& message, std::optional<std::uint64_t> place = 0) {
  try {
    open_message(codec(), kCount, DType::f32, message, place);
    return "";
  } catch (const Error& error) {
    return std::string(name(error.code())) + ": " + error.what();
  }
}

TEST(Message, OpensInItsPlaceAlone) {
  for (const Sealed sealed : {Sealed::no, Sealed::yes}) {
    for (const std::uint64_t place : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      const Bytes message = message_for(place, sealed);
      EXPECT_EQ(open(message, place), "");
      EXPECT_EQ(open(message, std::nullopt), "") << "own memory";
      for (const std::uint64_t other :
           {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{77}, place ^ 0x8000}) {
        if (other == place) continue;
        EXPECT_EQ(open(message, other).rfind("corrupt_data: ", 0), 0u) << place << " in place of " << other;
      }
    }
  }
}

/// The header has room for 16 bits of the place; a seal tells apart what those do not.
TEST(Message, ASealKnowsAllBitsOfThePlace) {
  const std::uint64_t place = 5;
  const std::uint64_t other = place + (std::uint64_t{1} << 40);
  EXPECT_EQ(open(message_for(place, Sealed::no), other), "");
  EXPECT_NE(open(message_for(place, Sealed::yes), other).find("checksum"), std::string::npos);
}

/// But for the bit that says that there is one: without it the message opens unsealed, and where a seal is
/// due that will not do.
TEST(Message, ASealKnowsEveryBit) {
  const Bytes message = message_for(9, Sealed::yes);
  for (std::size_t bit = 0; bit < 8 * message.size(); ++bit) {
    Bytes changed = message;
    changed[bit / 8] ^= std::byte{1} << (bit % 8);
    if (bit == 8 * 4 + 2) {
      EXPECT_FALSE(open_message(codec(), kCount, DType::f32, changed, 9).sealed);
      continue;
    }
    ASSERT_NE(open(changed, 9), "") << "bit " << bit % 8 << " of byte " << bit / 8;
  }
  for (std::size_t bytes = 0; bytes < message.size(); ++bytes) {
    ASSERT_NE(open(Bytes(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(bytes)), 9), "")
        << bytes;
  }
}

/// What a user of Codec alone writes and reads is in place 0, sealed or not.
TEST(Message, CodecsReadPlaceZero) {
  for (const Sealed sealed : {Sealed::no, Sealed::yes}) {
    Tensor out(kCount, DType::f32);
    EXPECT_NO_THROW(codec().decode(message_for(0, sealed), out.view()));
    EXPECT_THROW(codec().decode(message_for(3, sealed), out.view()), Error);
  }
  Bytes plain(codec().max_bytes(kCount, DType::f32));
  const Tensor values(normal_values(kCount, DType::f32, 1, 0), DType::f32);
  codec().encode(values.view(), {}, plain);
  EXPECT_EQ(plain == message_for(0, Sealed::no), true);
}

TEST(Message, ContentsSayWhatWasThere) {
  Bytes flagged(kHeaderBytes + kTrailerBytes);
  write_header(codec(), kCount, DType::f32, kNonFinite, flagged);
  flagged.resize(seal(flagged, kHeaderBytes, 4, Sealed::yes));
  const Contents contents = open_message(codec(), kCount, DType::f32, flagged, 4);
  EXPECT_TRUE(contents.sealed);
  EXPECT_EQ(contents.flags, kNonFinite);
  EXPECT_TRUE(contents.payload.empty());
  const Bytes plain = message_for(4, Sealed::no);
  EXPECT_FALSE(open_message(codec(), kCount, DType::f32, plain, 4).sealed);
}

}  // namespace
}  // namespace terse::test
