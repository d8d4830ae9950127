// SPDX-License-Identifier: Apache-2.0
//
// hadamard: the rotation is bit-identical to the reference, with steps of all lengths; and what it is for,
// and where it ends.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;

Bytes encode(const Codec& codec, const Tensor& values, View residual, DType as, const RandomKey& key = {}) {
  Bytes message(codec.max_bytes(values.count(), as));
  message.resize(codec.encode(values.view(), residual, message, as, 1.0, {key}));
  return message;
}

Bytes payload_of(const Bytes& message) { return {message.begin() + 16, message.end()}; }

/// The same payload as the inner codec's of the values that a loop of one element after the other has
/// rotated, and back.
TEST(Hadamard, IsTheReferenceToTheBit) {
  struct Row {
    std::size_t block;
    const char* inner;
  };
  for (const auto& [block, inner_spec] :
       {Row{16, "onebit:block=64"}, Row{32, "onebit:block=8"}, Row{128, "quant:bits=4,block=64"},
        Row{1024, "onebit:block=4096"}, Row{8192, "natural:block=64"}, Row{65536, "cast:bf16"}}) {
    const auto inner = make_codec(inner_spec);
    const std::uint32_t seed = block == 32 ? 5 : 0;
    const auto codec = make_codec("hadamard:block=" + std::to_string(block) +
                                  ",seed=" + std::to_string(seed) + "+" + inner_spec);
    for (const DType as : kAllDTypes) {
      if (!codec->supports(as)) continue;
      const DType accumulator = accumulator_of(as);
      for (const std::size_t count :
           {std::size_t{1}, std::size_t{37}, block - 1, block + 1, 2 * block + 447}) {
        SCOPED_TRACE(codec->spec() + " of " + std::to_string(count) + " " + std::string(name(as)));
        const RandomKey key{2, 3, 64};
        const Tensor values(normal_values(count, as, 1, 0), as, 1);
        const Bytes message = encode(*codec, values, {}, as, key);
        const Tensor y(rotated(values.doubles(), accumulator, block, seed), accumulator);
        Bytes inner_message = encode(*inner, y, {}, as, key);
        ASSERT_EQ(payload_of(message), payload_of(inner_message));
        Tensor q(count, accumulator);
        inner->decode(inner_message, q.view());
        Tensor decoded(count, accumulator, 1);
        codec->decode(message, decoded.view());
        const Tensor want(rotated_back(q.doubles(), accumulator, block, seed), accumulator);
        ASSERT_TRUE(decoded.same_bits(want));
        ASSERT_TRUE(decoded.guards_intact());
      }
    }
  }
}

/// The property tests look at examples with short blocks; these have several runs, and an end.
TEST(Hadamard, LongTensorsKeepWhatTheMessageLeavesOut) {
  for (const char* spec :
       {"hadamard+onebit", "hadamard:block=1024+onebit:block=8192", "hadamard+cast:bf16"}) {
    SCOPED_TRACE(spec);
    const auto codec = make_codec(spec);
    const std::size_t count = 3 * codec->traits().block + 4096 + 777;
    const Tensor values(normal_values(count, DType::f32, 1, 0), DType::f32, 1);
    const Tensor old(normal_values(count, DType::f32, 2, 0, 0.4), DType::f32, 1);
    const Tensor v(add_in(DType::f32, values.doubles(), old.doubles()), DType::f32);
    Tensor residual = old;
    const Bytes message = encode(*codec, values, residual.view(), DType::f32);
    EXPECT_EQ(message, encode(*codec, v, {}, DType::f32));
    Tensor decoded(count, DType::f32);
    codec->decode(message, decoded.view());
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(residual[i], round_to(v[i] - decoded[i], DType::f32)) << i;
      error += residual[i] * residual[i];
      size += v[i] * v[i];
    }
    EXPECT_LT(error, 0.5 * size);
    // one bad value at the end, and all is as it was
    Tensor bad = values;
    bad.set(count - 1, HUGE_VAL);
    residual = old;
    ASSERT_TRUE(is_flagged(encode(*codec, bad, residual.view(), DType::f32)));
    for (std::size_t i = 0; i < count; ++i) ASSERT_NEAR(residual[i], old[i], 1e-5) << i;
  }
}

/// One large element does not decide what becomes of the others.
TEST(Hadamard, TailsNoLongerMatter) {
  const std::size_t count = 8192;
  std::vector<double> input = normal_values(count, DType::f32, 1, 0);
  for (std::size_t i = 0; i < count; i += 500) input[i] *= 200;
  const Tensor values(input, DType::f32);
  const auto error_of = [&](const std::string& spec) {
    const auto codec = make_codec(spec);
    Tensor decoded(count, DType::f32);
    codec->decode(encode(*codec, values, {}, DType::f32), decoded.view());
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < count; ++i) {
      error += std::pow(values[i] - decoded[i], 2);
      size += std::pow(values[i], 2);
    }
    return std::sqrt(error / size);
  };
  EXPECT_GT(error_of("onebit"), 0.9);
  EXPECT_LT(error_of("hadamard+onebit"), 0.65) << "of normal values it is 0.6";
  EXPECT_LT(error_of("hadamard:seed=1+onebit"), 0.65);
}

TEST(Hadamard, TraitsAreThoseOfTheInnerCodec) {
  const auto traits_of = [](const char* spec) { return make_codec(spec)->traits(); };
  EXPECT_TRUE(traits_of("hadamard+quant:rounding=stochastic").unbiased);
  EXPECT_FALSE(traits_of("hadamard+quant:qsgd").contractive);
  EXPECT_TRUE(traits_of("hadamard+natural").contractive);
  EXPECT_FALSE(traits_of("hadamard+onebit:scale=rms").contractive);
  EXPECT_FALSE(traits_of("hadamard+quant").block_error_bound.has_value());
  EXPECT_EQ(traits_of("hadamard+cast:f16").block, 2048u);
  EXPECT_EQ(traits_of("hadamard:block=1024+onebit").block, 2048u);
  EXPECT_EQ(traits_of("hadamard:block=4096+onebit").block, 4096u);
  EXPECT_FALSE(make_codec("hadamard+cast:f16")->supports(DType::f64));
}

/// The inner codec's draws are those of the key, and unbiased.
TEST(Hadamard, DrawsAreTheInnerCodecs) {
  const auto codec = make_codec("hadamard:block=64+quant:bits=2,rounding=stochastic,block=64");
  const std::size_t count = 5000;
  const Tensor values(normal_values(count, DType::f32, 1, 0), DType::f32);
  EXPECT_EQ(encode(*codec, values, {}, DType::f32, {1, 2, 64}),
            encode(*codec, values, {}, DType::f32, {1, 2, 64}));
  std::vector<double> sums(count);
  constexpr std::uint64_t kCalls = 400;
  double one = 0;
  for (std::uint64_t call = 0; call < kCalls; ++call) {
    Tensor decoded(count, DType::f32);
    codec->decode(encode(*codec, values, {}, DType::f32, {call, 2, 64}), decoded.view());
    for (std::size_t i = 0; i < count; ++i) sums[i] += decoded[i] - values[i];
    if (call == 0) {
      for (const double off : sums) one += off * off;
    }
  }
  double all = 0;
  for (const double sum : sums) all += std::pow(sum / kCalls, 2);
  EXPECT_NEAR(all / one * kCalls, 1.0, 0.1) << "the variance of a mean";
}

/// Values that are finite while their sums are not, before encoding or after.
TEST(Hadamard, SumsBeyondTheRangeAreFlagged) {
  const double most = std::numeric_limits<float>::max();
  struct Row {
    const char* spec;
    DType as;
    double value;
    bool everywhere;  ///< or in one element
    bool flagged;
  };
  for (const Row& row : {Row{"hadamard:block=16+onebit:block=64", DType::f32, most, true, true},
                         Row{"hadamard:block=16+onebit:block=64", DType::f32, most / 8, false, false},
                         Row{"hadamard:block=16+onebit:block=64", DType::f32, most / 32, true, false},
                         // 16376 goes to 16384, which four of make 65536
                         Row{"hadamard:block=16+natural:block=64", DType::f16, 65504, false, true},
                         Row{"hadamard:block=16+natural:block=64", DType::f16, 32768, false, false},
                         Row{"hadamard:block=16+onebit:block=64", DType::f16, 65504, false, false}}) {
    SCOPED_TRACE(std::string(row.spec) + " of " + std::to_string(row.value));
    const auto codec = make_codec(row.spec);
    for (const bool feedback : {false, true}) {
      Tensor values(16, row.as);
      for (std::size_t i = 0; i < 16; ++i) {
        if (row.everywhere || i == 5) values.set(i, row.value);
      }
      Tensor residual(16, accumulator_of(row.as));
      const Bytes message = encode(*codec, values, feedback ? residual.view() : View{}, row.as);
      ASSERT_EQ(is_flagged(message), row.flagged);
      Tensor out(16, row.as);
      if (!row.flagged) codec->decode(message, out.view());
      for (std::size_t i = 0; i < 16; ++i) {
        EXPECT_TRUE(std::isfinite(out[i])) << i;
        EXPECT_TRUE(!row.flagged || residual[i] == 0.0) << i;
      }
    }
  }
}

/// A message whose sums no encoder would have sent.
TEST(Hadamard, SumsBeyondTheRangeAreRefused) {
  const auto codec = make_codec("hadamard:block=16+onebit:block=64");
  const Tensor values(normal_values(16, DType::f32, 1, 0), DType::f32);
  Bytes message = encode(*codec, values, {}, DType::f32);
  message[16 + 2] = std::byte{0x7f};  // the scale, nearly the largest of all
  message[16 + 3] = std::byte{0x7f};
  message[16 + 4] = message[16 + 5] = std::byte{0};
  Tensor out(16, DType::f32);
  try {
    codec->decode(message, out.view());
    FAIL() << "decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt_data) << error.what();
  }
}

}  // namespace
}  // namespace terse::test
