// SPDX-License-Identifier: Apache-2.0
//
// randomk: which elements are kept, and that what is kept adds up without being decoded.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "codec/rounds.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Bytes = std::vector<std::byte>;
constexpr std::size_t kHeader = 16;

Bytes encode(const Codec& codec, const Tensor& values, View residual, const RandomKey& key) {
  Bytes message(codec.max_bytes(values.count(), values.dtype()));
  message.resize(codec.encode(values.view(), residual, message, values.dtype(), 1.0, {key}));
  return message;
}

/// The elements that come out of it.
std::vector<std::size_t> kept_in(const Codec& codec, std::size_t count, const RandomKey& key, int rank) {
  std::vector<double> values = normal_values(count, DType::f32, 1, rank);
  for (double& v : values) v += v < 0 ? -1 : 1;
  Tensor out(count, DType::f32);
  codec.decode(encode(codec, Tensor(values, DType::f32), {}, key), out.view());
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < count; ++i) {
    if (out[i] == 0) continue;
    kept.push_back(i);
    EXPECT_EQ(out[i], round_to(values[i], DType::f32)) << "it is sent as it is";
  }
  return kept;
}

TEST(Randomk, SaysWhatItIs) {
  const auto codec = make_codec("randomk");
  EXPECT_EQ(codec->spec(), "randomk:ratio=0.01,block=1024,seed=0");
  const CodecTraits& traits = codec->traits();
  EXPECT_TRUE(traits.sparse && traits.fixed_size && traits.contractive && traits.summable);
  EXPECT_FALSE(traits.unbiased || traits.whole_tensor || traits.splittable || traits.lossless);
  EXPECT_EQ(traits.block, 1024u);
  for (const std::string& spec : all_specs()) {
    const auto any = make_codec(spec);
    EXPECT_EQ(rounds_of(*any) != nullptr, any->traits().summable) << spec;
  }
  EXPECT_EQ(codec->max_bytes(1024, DType::f32), kHeader + 11 * 4 + 16);
  EXPECT_EQ(codec->max_bytes(1025, DType::f16), kHeader + 12 * 2 + 16);
}

TEST(Randomk, KeepsTheSameElementsOnAllRanks) {
  for (const char* spec : {"randomk", "randomk:ratio=0.1,block=64", "randomk:ratio=0.3,block=24,seed=7"}) {
    SCOPED_TRACE(spec);
    const auto codec = make_codec(spec);
    const std::size_t count = 5 * codec->traits().block + 3;
    const RandomKey here{3, 0, 512};
    const auto kept = kept_in(*codec, count, here, 0);
    EXPECT_EQ(kept, randomk_kept(codec->spec(), count, here));
    for (const std::uint32_t stream : {1u, 2u, 7u}) {
      EXPECT_EQ(kept_in(*codec, count, {3, stream, 512}, static_cast<int>(stream)), kept);
    }
    for (const RandomKey& other :
         {RandomKey{4, 0, 512}, RandomKey{3, 0, 513}, RandomKey{0, 0, 0},
          RandomKey{3 + (std::uint64_t{1} << 32), 0, 512}, RandomKey{3, 0, 512 + (std::uint64_t{1} << 40)}}) {
      EXPECT_NE(kept_in(*codec, count, other, 0), kept);
    }
    std::string other_seed = codec->spec();
    other_seed.insert(other_seed.find("seed=") + 5, 1, '1');
    EXPECT_NE(kept_in(*make_codec(other_seed), count, here, 0), kept);
  }
}

/// One of each stratum, and over many calls each as often as its neighbours, to what chance allows: neither
/// less nor more evenly than that. And what is kept of one stratum says nothing of the next.
TEST(Randomk, KeepsEveryElementEquallyOften) {
  const auto codec = make_codec("randomk:ratio=0.07,block=100");
  constexpr std::size_t kCount = 230;  // strata of 14 and 15; 14, 14 and 15 and so on; of 30, three of 10
  constexpr std::uint64_t kCalls = 4000;
  std::vector<double> times(kCount);
  std::vector<std::size_t> strata;  // where each begins
  for (const auto& [begin, m] : {std::pair{0u, 100u}, std::pair{100u, 100u}, std::pair{200u, 30u}}) {
    const std::size_t k = topk_kept(codec->spec(), m);
    for (std::size_t j = 0; j < k; ++j) strata.push_back(begin + j * m / k);
  }
  strata.push_back(kCount);
  const auto position = [&](const std::vector<std::size_t>& kept, std::size_t s) {
    const auto size = static_cast<double>(strata[s + 1] - strata[s]);
    return (static_cast<double>(kept[s] - strata[s]) + 0.5) / size - 0.5;
  };
  double together = 0;
  for (std::uint64_t call = 0; call < kCalls; ++call) {
    const auto kept = kept_in(*codec, kCount, {.call = call}, 0);
    ASSERT_EQ(kept.size(), strata.size() - 1);
    for (std::size_t s = 0; s < kept.size(); ++s) {
      ASSERT_TRUE(kept[s] >= strata[s] && kept[s] < strata[s + 1]) << "call " << call << ", stratum " << s;
      ++times[kept[s]];
      if (s + 1 < kept.size()) together += position(kept, s) * position(kept, s + 1);
    }
  }
  double chi2 = 0;
  const auto freedom = static_cast<double>(kCount - (strata.size() - 1));
  for (std::size_t s = 0; s + 1 < strata.size(); ++s) {
    const double share = 1.0 / static_cast<double>(strata[s + 1] - strata[s]);
    const double expected = kCalls * share;
    for (std::size_t i = strata[s]; i < strata[s + 1]; ++i) {
      EXPECT_NEAR(times[i], expected, 5 * std::sqrt(expected * (1 - share))) << "element " << i;
      chi2 += std::pow(times[i] - expected, 2) / expected;
    }
  }
  EXPECT_NEAR(chi2, freedom, 4 * std::sqrt(2 * freedom));
  const double pairs = kCalls * static_cast<double>(strata.size() - 2);
  EXPECT_NEAR(together, 0, 4 * std::sqrt(pairs) / 12);  // the product of two that are even over [-1/2, 1/2)
}

/// What ranks send, added as numbers, is what they decode to, added; on values whose sums are exact.
TEST(Randomk, AddendsAddUp) {
  constexpr int kRanks = 4;
  for (const std::string& spec :
       {std::string("randomk:ratio=0.1,block=64"), std::string("randomk:ratio=0.4,block=24,seed=7"),
        std::string("randomk"), std::string("randomk:ratio=1")}) {
    const auto codec = make_codec(spec);
    const RoundsCodec& rounds = *rounds_of(*codec);
    ASSERT_EQ(rounds.rounds_in_order().size(), 2u);
    EXPECT_EQ(rounds.rounds_in_order()[1].addend, Addend::accumulator);
    EXPECT_GE(rounds.most_ranks(), 1u << 20);
    for (const DType as : kAllDTypes) {
      for (const std::size_t count : {1u, 23u, 64u, 500u, 5003u}) {
        SCOPED_TRACE(spec + " of " + std::to_string(count) + " " + std::string(name(as)));
        EXPECT_EQ(rounds.round_bytes(0, count, as, 0), 0u);
        const DType accumulator = accumulator_of(as);
        const std::size_t bytes = rounds.round_bytes(1, count, as, 0);
        std::vector<double> sums((codec->max_bytes(count, as) - kHeader - 16) / size_of(as));
        EXPECT_EQ(bytes, sums.size() * size_of(accumulator));
        std::vector<double> want(count);
        std::mt19937_64 random(count);
        for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
          const RandomKey key{5, 2 * rank, 3 * codec->traits().block};
          const auto sixteenths = [&](DType dtype) {
            Tensor t(count, dtype, 1);
            for (std::size_t i = 0; i < count; ++i) t.set(i, static_cast<double>(random() % 31) / 16 - 1);
            return t;
          };
          const Tensor values = sixteenths(as);
          Tensor residual = sixteenths(accumulator);
          Tensor same = residual;
          const Bytes message = encode(*codec, values, residual.view(), key);
          Tensor decoded(count, accumulator);
          codec->decode(message, decoded.view());
          for (std::size_t i = 0; i < count; ++i) want[i] += decoded[i];

          const RoundContext context{.as = as, .ranks = kRanks, .encode = {.random = key}};
          ASSERT_TRUE(rounds.contribute(0, values.view(), same.view(), context, {}, {}));
          Bytes addends(bytes + 8, std::byte{0x5A});
          ASSERT_TRUE(
              rounds.contribute(1, values.view(), same.view(), context, {}, std::span(addends).first(bytes)));
          for (std::size_t i = bytes; i < addends.size(); ++i) ASSERT_EQ(addends[i], std::byte{0x5A});
          ASSERT_TRUE(same.same_bits(residual) && same.guards_intact());
          const auto numbers = doubles_of({addends.data(), sums.size(), accumulator});
          EXPECT_EQ(numbers, doubles_of({message.data() + kHeader, sums.size(), as}));
          for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += numbers[k];
        }
        const Tensor reduced(sums, accumulator);
        Tensor out(count, as, 1);
        for (std::size_t i = 0; i < count; ++i) out.set(i, 3);
        rounds.conclude({.as = as, .ranks = kRanks, .encode = {.random = {5, 9, 3 * codec->traits().block}}},
                        {{{}, reduced.bytes()}}, out.view(), 0.25);
        ASSERT_TRUE(out.guards_intact());
        for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(out[i], round_to(0.25 * want[i], as)) << i;
      }
    }
  }
}

/// A value that is not sent counts too, wherever it is.
TEST(Randomk, MeasuresEveryValue) {
  const auto codec = make_codec("randomk:ratio=0.1,block=64");
  const RoundsCodec& rounds = *rounds_of(*codec);
  const std::size_t count = 3000;
  for (const DType as : {DType::f16, DType::f32, DType::f64}) {
    const DType accumulator = accumulator_of(as);
    const double beyond = as == DType::f16 ? 65600.0 : std::numeric_limits<double>::infinity();
    for (std::size_t at = 0; at < count; at += 97) {
      Tensor sums(normal_values(count, accumulator, 1, 0), accumulator);
      Tensor residual(count, accumulator);
      EXPECT_TRUE(rounds.contribute(0, std::as_const(sums).view(), residual.view(), {.as = as}, {}, {}));
      residual.set(at, -std::numeric_limits<double>::infinity());
      EXPECT_FALSE(rounds.contribute(0, std::as_const(sums).view(), residual.view(), {.as = as}, {}, {}))
          << at;
      sums.set(at, beyond);
      EXPECT_EQ(rounds.contribute(0, std::as_const(sums).view(), {}, {.as = as}, {}, {}),
                std::isfinite(beyond))
          << at;
      Bytes message(codec->max_bytes(count, as));
      codec->encode(std::as_const(sums).view(), {}, message, as);
      EXPECT_TRUE(is_flagged(message)) << at;
    }
  }
  // beyond the range after the factor, too
  Tensor half(std::vector<double>{1, 2, 40000, 3}, DType::f16);
  Bytes message(codec->max_bytes(4, DType::f16));
  codec->encode(std::as_const(half).view(), {}, message, DType::f16, 1.0);
  EXPECT_FALSE(is_flagged(message));
  for (const std::uint64_t call : {0u, 1u, 2u, 3u, 4u, 5u}) {
    codec->encode(std::as_const(half).view(), {}, message, DType::f16, 2.0, {.random = {.call = call}});
    EXPECT_TRUE(is_flagged(message));
  }
}

/// Any call and any position will do; a value that is not finite will not, but among sums.
TEST(Randomk, DecodesWhateverTheKey) {
  const auto codec = make_codec("randomk:ratio=0.1,block=64");
  const std::size_t count = 200;
  Bytes message = encode(*codec, Tensor(normal_values(count, DType::f32, 1, 0), DType::f32), {}, {});
  for (std::size_t i = message.size() - 16; i < message.size(); ++i) message[i] = std::byte{0xFF};
  Tensor out(count, DType::f32, 1);
  codec->decode(message, out.view());
  EXPECT_TRUE(out.guards_intact());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) kept += out[i] != 0;
  EXPECT_EQ(kept, 22u);  // 7 of each 64, 1 of 8
  const float infinity = HUGE_VALF;
  std::memcpy(message.data() + kHeader + 4, &infinity, sizeof infinity);
  try {
    codec->decode(message, out.view());
    ADD_FAILURE() << "decoded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt_data);
  }
  const std::size_t bytes = rounds_of(*codec)->round_bytes(1, count, DType::f32, 0);
  rounds_of(*codec)->conclude({.as = DType::f32, .ranks = 2},
                              {{{}, std::span(message).subspan(kHeader, bytes)}}, out.view(), 1.0);
  std::size_t infinite = 0;
  for (std::size_t i = 0; i < count; ++i) infinite += std::isinf(out[i]);
  EXPECT_EQ(infinite, 1u);
}

}  // namespace
}  // namespace terse::test
