// SPDX-License-Identifier: Apache-2.0
//
// Messages of several fragments, and what their owner makes of them: the same as a decoding, an addition and
// an encoding of each fragment by itself; and all taken back where the last value will not do.
#include "codec/piece.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "codec/elements.hpp"
#include "codec/message.hpp"
#include "support/exact.hpp"
#include "support/sixteenths.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

constexpr std::size_t kRanks = 3;
using Bytes = std::vector<std::byte>;

std::vector<std::shared_ptr<const Codec>> all_codecs() {
  std::vector<std::shared_ptr<const Codec>> all = {make_codec("onebit:block=64"),
                                                   make_codec("onebit"),
                                                   make_codec("cast:bf16"),
                                                   make_codec("identity"),
                                                   make_codec("quant:bits=4"),
                                                   make_codec("quant:rounding=stochastic"),
                                                   make_codec("ternary"),
                                                   make_codec("natural:block=64"),
                                                   make_codec("sum8:block=64"),
                                                   make_codec("topk:ratio=0.1"),
                                                   make_codec("hadamard:block=64+onebit:block=64"),
                                                   make_codec("hadamard+quant:bits=4"),
                                                   make_codec("threshold:ratio=0.1"),
                                                   make_codec("topk:ratio=0.1,block=64"),
                                                   make_codec("randomk:ratio=0.1,block=64"),
                                                   std::make_shared<Sixteenths>(Size::fixed, 4),
                                                   std::make_shared<Sixteenths>(Size::fixed, kWhole),
                                                   std::make_shared<Sixteenths>(Size::variable, kWhole)};
  for (const CodecEntry& row : codecs()) {  // those that may be missing
    if (row.name != "lossless" && row.name != "zfp") continue;
    for (const std::string& spec : row.examples) all.push_back(make_codec(spec));
  }
  return all;
}

/// Lists of fragments: of one run and of several.
std::vector<std::vector<std::size_t>> all_counts() {
  return {{1}, {64}, {5000}, {20000}, {64, 1, 63}, {9000, 64, 5000, 4096}, {1, 1, 1, 1}};
}

struct Sides {
  std::vector<std::vector<Tensor>> values;     // by rank, by fragment
  std::vector<std::vector<Tensor>> residuals;  // by rank, by fragment
  std::vector<Bytes> messages;                 // by rank
  std::vector<Contents> opened;
};

std::vector<Fragment> fragments_of(std::vector<Tensor>& values, std::vector<Tensor>& residuals) {
  std::vector<Fragment> fragments;
  for (std::size_t f = 0; f < values.size(); ++f) {
    fragments.push_back({std::as_const(values[f]).view(), residuals[f].view()});
  }
  return fragments;
}

// Sums that are to be made, with these residuals.
std::vector<Fragment> sums_of(std::vector<Tensor>& residuals) {
  std::vector<Fragment> sums;
  for (Tensor& t : residuals) sums.push_back({ConstView(nullptr, t.count(), t.dtype()), t.view()});
  return sums;
}

Sides encode_all(const Codec& codec, const std::vector<std::size_t>& counts, std::size_t total) {
  const PieceCoder coder(codec, DType::f32);
  Sides sides;
  sides.values.resize(kRanks);
  sides.residuals.resize(kRanks);
  for (std::size_t r = 0; r < kRanks; ++r) {
    for (std::size_t f = 0; f < counts.size(); ++f) {
      sides.values[r].emplace_back(normal_values(counts[f], DType::f32, 10 + f, static_cast<int>(r)),
                                   DType::f32);
      sides.residuals[r].emplace_back(normal_values(counts[f], DType::f32, 90 + f, static_cast<int>(r)),
                                      DType::f32);
    }
    Bytes& message = sides.messages.emplace_back(coder.max_bytes(counts));
    message.resize(coder.encode(fragments_of(sides.values[r], sides.residuals[r]), total, message));
  }
  for (const Bytes& message : sides.messages) {
    sides.opened.push_back(open_message(codec, total, DType::f32, message));
  }
  return sides;
}

std::size_t sum_of(const std::vector<std::size_t>& counts) {
  std::size_t total = 0;
  for (const std::size_t n : counts) total += n;
  return total;
}

std::string describe(const Codec& codec, const std::vector<std::size_t>& counts) {
  std::string text = codec.spec() + (codec.traits().fixed_size ? ", fixed:" : ", variable:");
  for (const std::size_t n : counts) text += " " + std::to_string(n);
  return text;
}

TEST(Pieces, AreTheirFragments) {
  for (const auto& codec : all_codecs()) {
    for (const auto& counts : all_counts()) {
      SCOPED_TRACE(describe(*codec, counts));
      const PieceCoder coder(*codec, DType::f32);
      Sides sides = encode_all(*codec, counts, sum_of(counts));
      ASSERT_EQ(sides.opened[0].flags, 0);
      std::vector<Tensor> decoded;
      std::vector<View> to;
      for (const std::size_t n : counts) decoded.emplace_back(n, DType::f32);
      for (Tensor& t : decoded) to.push_back(t.view());
      coder.decode(sides.opened[0], to, Into::overwrite, 1.0);
      for (std::size_t f = 0; f < counts.size(); ++f) {
        // by itself
        Tensor values(normal_values(counts[f], DType::f32, 10 + f, 0), DType::f32);
        Tensor residual(normal_values(counts[f], DType::f32, 90 + f, 0), DType::f32);
        Bytes message(codec->max_bytes(counts[f], DType::f32));
        message.resize(codec->encode(std::as_const(values).view(), residual.view(), message));
        Tensor alone(counts[f], DType::f32);
        codec->decode(message, alone.view());
        ASSERT_TRUE(decoded[f].same_bits(alone)) << f;
        ASSERT_TRUE(sides.residuals[0][f].same_bits(residual)) << f;
      }
    }
  }
}

TEST(Pieces, AreReducedAsStepByStep) {
  for (const auto& codec : all_codecs()) {
    for (const auto& counts : all_counts()) {
      for (const double factor : {1.0, 3.0}) {
        SCOPED_TRACE(describe(*codec, counts));
        const PieceCoder coder(*codec, DType::f32);
        const Sides sides = encode_all(*codec, counts, sum_of(counts));
        std::vector<Tensor> servers;
        for (std::size_t f = 0; f < counts.size(); ++f) {
          servers.emplace_back(normal_values(counts[f], DType::f32, 700 + f, 0), DType::f32);
        }
        Bytes reduced(coder.max_bytes(counts));
        std::size_t reading = 0;
        reduced.resize(
            coder.reduce(sides.opened, sums_of(servers), kRanks, factor, sum_of(counts), reduced, reading));
        const Contents result = open_message(*codec, sum_of(counts), DType::f32, reduced);
        ASSERT_EQ(result.flags, 0);
        std::vector<Tensor> decoded;
        std::vector<View> to;
        for (const std::size_t n : counts) decoded.emplace_back(n, DType::f32);
        for (Tensor& t : decoded) to.push_back(t.view());
        coder.decode(result, to, Into::overwrite, 1.0);

        for (std::size_t f = 0; f < counts.size(); ++f) {
          Tensor sum(counts[f], DType::f32);
          for (std::size_t r = 0; r < kRanks; ++r) {
            Tensor values(normal_values(counts[f], DType::f32, 10 + f, static_cast<int>(r)), DType::f32);
            Tensor residual(normal_values(counts[f], DType::f32, 90 + f, static_cast<int>(r)), DType::f32);
            Bytes message(codec->max_bytes(counts[f], DType::f32));
            message.resize(codec->encode(std::as_const(values).view(), residual.view(), message));
            codec->decode(message, sum.view(), r == 0 ? Into::overwrite : Into::add);
          }
          divide(sum.view(), kRanks);
          Tensor server(normal_values(counts[f], DType::f32, 700 + f, 0), DType::f32);
          Bytes message(codec->max_bytes(counts[f], DType::f32));
          message.resize(
              codec->encode(std::as_const(sum).view(), server.view(), message, DType::f32, factor));
          Tensor want(counts[f], DType::f32);
          codec->decode(message, want.view());
          ASSERT_TRUE(decoded[f].same_bits(want)) << f;
          ASSERT_TRUE(servers[f].same_bits(server)) << f;
        }
      }
    }
  }
}

/// The last element's sum, or value, is beyond the codec's range: the message is flagged, and all residuals
/// are what they were, to rounding.
TEST(Pieces, AreTakenBackToTheLastElement) {
  for (const auto& codec : all_codecs()) {
    const bool limited = codec->name() == "sixteenths";
    if (!limited && codec->name() != "onebit") continue;
    for (const auto& counts : all_counts()) {
      SCOPED_TRACE(describe(*codec, counts));
      const PieceCoder coder(*codec, DType::f32);
      const std::size_t total = sum_of(counts);
      Sides sides = encode_all(*codec, counts, total);
      std::vector<Tensor> before = sides.residuals[0];
      // in the reduction: a server residual that is too large for the average
      std::vector<Tensor> servers;
      for (std::size_t f = 0; f < counts.size(); ++f) {
        servers.emplace_back(normal_values(counts[f], DType::f32, 700 + f, 0), DType::f32);
      }
      const double most = limited ? 2 * kLimit : std::numeric_limits<double>::infinity();
      servers.back().set(counts.back() - 1, most);
      const std::vector<Tensor> servers_before = servers;
      Bytes reduced(coder.max_bytes(counts));
      std::size_t reading = 0;
      const std::size_t bytes =
          coder.reduce(sides.opened, sums_of(servers), kRanks, 1.0, total, reduced, reading);
      ASSERT_EQ(bytes, kHeaderBytes);
      ASSERT_TRUE(is_flagged(reduced));
      for (std::size_t f = 0; f < counts.size(); ++f) {
        for (std::size_t i = 0; i < counts[f]; ++i) {
          const double was = servers_before[f][i];
          if (std::isinf(was)) continue;
          ASSERT_NEAR(servers[f][i], was, 1e-5 * (1 + std::abs(was))) << f << " " << i;
        }
      }
      // in the encoding
      sides.values[0].back().set(counts.back() - 1, most);
      Bytes again(coder.max_bytes(counts));
      ASSERT_EQ(coder.encode(fragments_of(sides.values[0], sides.residuals[0]), total, again), kHeaderBytes);
      ASSERT_TRUE(is_flagged(again));
      for (std::size_t f = 0; f < counts.size(); ++f) {
        for (std::size_t i = 0; i < counts[f]; ++i) {
          ASSERT_NEAR(sides.residuals[0][f][i], before[f][i], 1e-5 * (1 + std::abs(before[f][i])));
        }
      }
    }
  }
}

/// Cut anywhere, or longer than it should be: an error that says which message it was, and no byte beyond it
/// is looked at (the address sanitizer's part).
TEST(Pieces, ThatWereCutAreFound) {
  for (const auto& codec : all_codecs()) {
    const std::vector<std::size_t> counts = {64, 4, 100};
    SCOPED_TRACE(describe(*codec, counts));
    const PieceCoder coder(*codec, DType::f32);
    const Sides sides = encode_all(*codec, counts, sum_of(counts));
    const std::size_t whole = sides.messages[1].size();
    for (std::size_t bytes = kHeaderBytes; bytes <= whole + 1; ++bytes) {
      if (bytes == whole) continue;
      Bytes message = sides.messages[1];
      message.resize(bytes);
      std::vector<Contents> opened = sides.opened;
      opened[1] = open_message(*codec, sum_of(counts), DType::f32, message);
      std::vector<Fragment> sums;
      for (const std::size_t n : counts) sums.push_back({ConstView(nullptr, n, DType::f32)});
      Bytes reduced(coder.max_bytes(counts));
      std::size_t reading = 0;
      try {
        coder.reduce(opened, sums, kRanks, 1.0, sum_of(counts), reduced, reading);
        FAIL() << bytes << " of " << whole << " bytes";
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::corrupt_data) << error.what();
        ASSERT_EQ(reading, 1u);
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
