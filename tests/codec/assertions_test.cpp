// SPDX-License-Identifier: Apache-2.0
//
// What messages, pieces and block codecs assert of those that call them: each kind, broken on purpose.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "codec/block_codec.hpp"
#include "codec/message.hpp"
#include "codec/piece.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kCount = 100;

const Codec& codec() {
  static const auto made = make_codec("onebit:block=64");
  return *made;
}

TEST(MessagesDeathTest, RefuseTooLittleRoom) {
  Bytes out(kHeaderBytes + kTrailerBytes);
  write_header(codec(), kCount, DType::f32, kNonFinite, out);
  EXPECT_EQ(seal(out, kHeaderBytes, 1, Sealed::yes), out.size());
  const std::span<std::byte> all(out);
  EXPECT_DEATH(write_header(codec(), kCount, DType::f32, 0, all.first(kHeaderBytes - 1)),
               "no room for a header");
  EXPECT_DEATH(seal(out, kHeaderBytes - 1, 1, Sealed::no), "without a header");
  EXPECT_DEATH(seal(out, out.size() + 1, 1, Sealed::no), "without a header");
  EXPECT_DEATH(seal(out, kHeaderBytes + 1, 1, Sealed::yes), "no room for a message's trailer");
}

TEST(PiecesDeathTest, RefuseFragmentsThatDoNotFit) {
  const PieceCoder coder(codec(), DType::f32);
  const Tensor values(kCount, DType::f32);
  Tensor residual(kCount, DType::f32);
  Tensor wide(kCount, DType::f64);
  const std::size_t counts[] = {kCount};
  Bytes out(coder.max_bytes(counts));
  const auto encode = [&](const ConstView& of, const View& left, std::size_t bytes) {
    const Fragment fragment{.values = of, .residual = left};
    coder.encode({&fragment, 1}, kCount, std::span(out).first(bytes));
  };
  encode(values.view(), residual.view(), out.size());
  EXPECT_DEATH(encode(wide.view(), {}, out.size()), "another type than its message");
  EXPECT_DEATH(encode(values.view(), residual.view().slice(0, kCount - 1), out.size()),
               "a residual has other elements than its fragment");
  EXPECT_DEATH(encode(values.view(), wide.view(), out.size()), "a type that its message does not allow");
  EXPECT_DEATH(encode(values.view(), {}, kHeaderBytes - 1), "no room for a header");
  EXPECT_DEATH(encode(values.view(), {}, out.size() - 1), "no room for a fragment");
}

TEST(PiecesDeathTest, RefuseMessagesWithoutValues) {
  const PieceCoder coder(codec(), DType::f32);
  Tensor out(kCount, DType::f32);
  Tensor residual(kCount, DType::f32);
  const std::vector<View> to = {out.view()};
  const std::vector<Contents> flagged = {{.flags = kNonFinite, .dtype = DType::f32, .payload = {}}};
  const std::size_t counts[] = {kCount};
  Bytes bytes(coder.max_bytes(counts));
  std::size_t reading = 0;
  const auto reduce = [&](std::span<const Contents> messages, const View& left, std::size_t room) {
    const Fragment sum{.values = ConstView(nullptr, kCount, DType::f32), .residual = left};
    coder.reduce(messages, {&sum, 1}, 1.0, 1.0, kCount, std::span(bytes).first(room), reading);
  };
  EXPECT_DEATH(coder.decode(flagged[0], to, Into::overwrite, 1.0), "without values is decoded");
  EXPECT_DEATH(coder.sum(flagged, to, 1.0, reading), "without values is added");
  EXPECT_DEATH(coder.sum({}, to, 1.0, reading), "made of no messages");
  EXPECT_DEATH(reduce(flagged, residual.view(), bytes.size()), "without values is added");
  EXPECT_DEATH(reduce(flagged, residual.view().slice(0, 1), bytes.size()), "a residual has other elements");
  EXPECT_DEATH(reduce(flagged, {}, kHeaderBytes - 1), "no room for a header");
}

/// Blocks of 64 bytes, in which one thing is wrong.
class WrongBlocks final : public BlockCodec {
 public:
  enum class Wrong : std::uint8_t { nothing, elements, bytes };
  explicit WrongBlocks(Wrong wrong) : BlockCodec("wrong", "wrong", traits_of()), wrong_(wrong) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.block = kBlockGroup;
    return traits;
  }
  std::size_t block_bytes(std::size_t n, DType) const override {
    // the piece asks first, then the codec for the whole tensor, and at last for each run
    return wrong_ == Wrong::bytes && ++asked_ > 2 ? n + 1 : n;
  }
  std::size_t encode_blocks(ConstView, std::size_t n, void*, DType, const RandomKey&,
                            std::byte*) const override {
    return groups_of(n) * kBlockGroup + (wrong_ == Wrong::elements ? 1 : 0);
  }
  bool decode_blocks(const std::byte*, DType, View, Into, double) const override { return true; }

  Wrong wrong_;
  mutable int asked_ = 0;
};

TEST(BlockCodecsDeathTest, RefuseTooLittleRoom) {
  const auto blocks = make_codec("quant:block=64");
  const PieceCoder coder(*blocks, DType::f32);
  const Tensor values(kCount, DType::f32);
  const std::size_t counts[] = {kCount};
  Bytes message(coder.max_bytes(counts));
  const Fragment fragment{.values = values.view()};
  message.resize(coder.encode({&fragment, 1}, kCount, message));
  const std::vector<Contents> messages = {open_message(*blocks, kCount, DType::f32, message)};
  const Fragment sum{.values = ConstView(nullptr, kCount, DType::f32)};
  Bytes out(message.size());
  std::size_t reading = 0;
  const auto reduce = [&](std::size_t room) {
    return coder.reduce(messages, {&sum, 1}, 1.0, 1.0, kCount, std::span(out).first(room), reading);
  };
  EXPECT_EQ(reduce(out.size()), out.size());
  EXPECT_THROW(reduce(out.size() - 1), Error);  // which a codec from outside may bring about
  const auto room = std::span(out).first(blocks->max_bytes(kCount, DType::f32) - kHeaderBytes - 1);
  EXPECT_DEATH(CodecAccess(*blocks).encode(values.view(), DType::f32, {}, room), "no room for the blocks");
}

TEST(BlockCodecsDeathTest, RefuseKernelsThatGoTooFar) {
  const Tensor values(kBlockGroup, DType::f32);
  const auto encode = [&](WrongBlocks::Wrong wrong) {
    const WrongBlocks wrong_blocks(wrong);
    const Fragment fragment{.values = values.view()};
    Bytes out(kHeaderBytes + 2 * kBlockGroup);
    PieceCoder(wrong_blocks, DType::f32).encode({&fragment, 1}, kBlockGroup, out);
  };
  encode(WrongBlocks::Wrong::nothing);
  EXPECT_DEATH(encode(WrongBlocks::Wrong::elements), "more elements than it was given");
  EXPECT_DEATH(encode(WrongBlocks::Wrong::bytes), "other room than the tensor");
}

}  // namespace
}  // namespace terse::test
