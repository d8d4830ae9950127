// SPDX-License-Identifier: Apache-2.0
//
// Every example of every codec, dtype, count and alignment: sizes, decoded values against independent
// references, adding, factors, feedback. Nothing is compared with the codec's own idea of itself.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "codec/internals.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;

struct Case {
  std::shared_ptr<const Codec> codec;
  DType as;      ///< the tensor's type
  DType values;  ///< what the values come in
  std::size_t count;
  std::size_t offset;  ///< elements off the boundary

  std::string text() const {
    return codec->spec() + " of " + std::to_string(count) + " " + std::string(name(as)) + " from " +
           std::string(name(values)) + ", " + std::to_string(offset) + " off";
  }
  std::vector<double> input(std::uint64_t seed, double deviation = 1.0) const {
    return normal_values(count, values, seed + count, static_cast<int>(offset), deviation);
  }
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const DType as : kAllDTypes) {
      if (!codec->supports(as)) continue;
      for (const std::size_t count : interesting_counts(*codec, 5003)) {
        const std::size_t offset = count % 4 == 3 ? 1 : count % 5;
        list.push_back({codec, as, as, count, offset});
        if (accumulator_of(as) != as) list.push_back({codec, as, accumulator_of(as), count, offset});
      }
    }
  }
  return list;
}

/// A message in memory of exactly its size, so that a sanitizer sees what reads on.
Bytes encode(const Case& c, const Tensor& values, View residual) {
  const std::size_t most = c.codec->max_bytes(c.count, c.as);
  Bytes out(most + 32, std::byte{0x5A});
  const Tensor before = values;
  const std::size_t bytes = c.codec->encode(values.view(), residual, std::span(out).first(most), c.as);
  EXPECT_LE(bytes, most);
  if (c.codec->traits().fixed_size && !is_flagged(out)) {
    EXPECT_EQ(bytes, most);
  }
  for (std::size_t i = most; i < out.size(); ++i)
    EXPECT_EQ(out[i], std::byte{0x5A}) << "written behind the end";
  EXPECT_TRUE(values.same_bits(before) && values.guards_intact()) << "the values were changed";
  return {out.begin(), out.begin() + static_cast<std::ptrdiff_t>(bytes)};
}

Tensor decode(const Case& c, const Bytes& message, DType out_dtype) {
  Tensor out(c.count, out_dtype, c.offset);
  for (std::size_t i = 0; i < c.count; ++i) out.set(i, 99);
  Tensor streamed = out;
  c.codec->decode(message, out.view());
  c.codec->decode(message, streamed.view(), Into::stream);
  EXPECT_TRUE(out.guards_intact() && streamed.guards_intact());
  EXPECT_TRUE(streamed.same_bits(out)) << "past the caches, something else is written";
  return out;
}

void expect_near(const std::vector<double>& got, const Expected& want) {
  ASSERT_EQ(got.size(), want.values.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want.values[i]), want.slack[i])
        << "element " << i << ": " << got[i] << " for " << want.values[i];
  }
}

TEST(RoundTrip, DecodesToTheReference) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(1), c.values, c.offset);
    const Bytes message = encode(c, values, {});
    ASSERT_FALSE(is_flagged(message));
    const Expected want = expected_decode(*c.codec, values.doubles(), c.as);
    for (const DType out : {c.as, accumulator_of(c.as)}) {
      const Tensor decoded = decode(c, message, out);
      expect_near(decoded.doubles(), want);
      // where a message holds values of that type; others are rounded where they get out of the accumulator
      const bool sums = c.codec->name() == "zfp" || c.codec->name() == "hadamard";
      const bool between = (sums || c.codec->traits().block_error_bound) && out != c.as;
      for (std::size_t i = 0; i < c.count && !between; ++i) {
        ASSERT_EQ(decoded[i], round_to(decoded[i], c.as))
            << "not a value of the tensor's type, element " << i;
      }
    }
    if (c.codec->traits().lossless && c.as == c.values) {
      EXPECT_TRUE(decode(c, message, c.as).same_bits(values));
    }
    EXPECT_EQ(encode(c, values, {}), message) << "encoding is not deterministic";
  }
}

TEST(RoundTrip, AddsAndMultiplies) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(2), c.values, c.offset);
    const Bytes message = encode(c, values, {});
    const Tensor plain = decode(c, message, accumulator_of(c.as));
    for (const DType dtype : {c.as, accumulator_of(c.as)}) {
      for (const double factor : {1.0, 1.0 / 3, -2.0}) {
        for (const Into into : {Into::overwrite, Into::add}) {
          Tensor out(normal_values(c.count, dtype, 3, 0), dtype, c.offset);
          const std::vector<double> old = out.doubles();
          c.codec->decode(message, out.view(), into, factor);
          ASSERT_TRUE(out.guards_intact());
          for (std::size_t i = 0; i < c.count; ++i) {
            const double part = factor * plain[i];
            const double want = into == Into::add ? old[i] + part : part;
            const double least = dtype == DType::f16 ? 0x1p-25 : 0;  // half the distance of subnormal ones
            const double slack =
                1.01 * unit_roundoff(dtype) * std::abs(want) + least +
                4 * unit_roundoff(accumulator_of(dtype)) * (std::abs(old[i]) + std::abs(part));
            ASSERT_LE(std::abs(out[i] - want), slack) << "element " << i << " factor " << factor;
          }
        }
      }
    }
  }
}

/// v = value + residual is encoded, residual = v - decode(v): exactly, in the accumulator's type.
TEST(Feedback, ResidualIsWhatTheMessageLeftOut) {
  for (const Case& c : cases()) {
    if (c.codec->traits().lossless) continue;
    SCOPED_TRACE(c.text());
    const DType accumulator = accumulator_of(c.as);
    const Tensor values(c.input(4), c.values, c.offset);
    const Tensor old(normal_values(c.count, accumulator, 5, 0, 0.4), accumulator, c.offset);
    const Tensor v(add_in(accumulator, values.doubles(), old.doubles()), accumulator, c.offset);
    Tensor residual = old;
    const Bytes message = encode(c, values, residual.view());
    EXPECT_TRUE(residual.guards_intact());
    // the message is that of v without feedback, bit for bit
    EXPECT_EQ(message, encode({c.codec, c.as, accumulator, c.count, c.offset}, v, {}));
    const Tensor decoded = decode(c, message, accumulator);
    for (std::size_t i = 0; i < c.count; ++i) {
      // of sums, receivers hold what is rounded to the tensor's type
      const double held = c.values == c.as ? decoded[i] : round_to(decoded[i], c.as);
      ASSERT_EQ(residual[i], round_to(v[i] - held, accumulator)) << "element " << i;
    }
    // and undo gives the old residual back, to rounding
    c.codec->undo(message, values.view(), residual.view());
    for (std::size_t i = 0; i < c.count; ++i) {
      const double size = std::abs(v[i]) + std::abs(decoded[i]) + std::abs(values[i]) + std::abs(old[i]);
      ASSERT_LE(std::abs(residual[i] - old[i]), 3 * unit_roundoff(accumulator) * size) << "element " << i;
    }
  }
}

TEST(Feedback, LosslessCodecsLeaveNothing) {
  for (const Case& c : cases()) {
    if (!c.codec->traits().lossless || c.as != c.values) continue;
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(6), c.values, c.offset);
    Tensor residual(c.count, accumulator_of(c.as), c.offset);
    const Bytes message = encode(c, values, residual.view());
    for (std::size_t i = 0; i < c.count; ++i) ASSERT_EQ(residual[i], 0.0);
    EXPECT_TRUE(decode(c, message, c.as).same_bits(values));
  }
}

/// Contractive codecs: |v - decode(encode(v))| < |v| (and <=, block by block, is what makes feedback sound).
TEST(Traits, ContractiveCodecsContract) {
  for (const Case& c : cases()) {
    if (!c.codec->traits().contractive || c.count == 0) continue;
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(7), c.values, c.offset);
    const Tensor decoded = decode(c, encode(c, values, {}), accumulator_of(c.as));
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < c.count; ++i) {
      error += std::pow(values[i] - decoded[i], 2);
      size += std::pow(values[i], 2);
    }
    EXPECT_LT(error, 0.999 * size);
  }
}

TEST(Traits, ErrorBoundHolds) {
  for (const Case& c : cases()) {
    const auto bound = c.codec->traits().error_bound;
    if (!bound || c.values != c.as) continue;
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(8), c.values, c.offset);
    const Tensor decoded = decode(c, encode(c, values, {}), c.as);
    for (std::size_t i = 0; i < c.count; ++i) {
      const double least = c.codec->spec() == "cast:f8e4m3" ? 0x1p-6 : 0x1p-14;  // normal from here on
      ASSERT_LE(std::abs(values[i] - decoded[i]), *bound * std::fmax(std::abs(values[i]), least)) << i;
    }
  }
}

TEST(Traits, BlockErrorBoundHolds) {
  for (const Case& c : cases()) {
    const auto bound = c.codec->traits().block_error_bound;
    if (!bound) continue;
    SCOPED_TRACE(c.text());
    const std::size_t block = c.codec->traits().block;
    for (const bool heavy : {false, true}) {
      std::vector<double> input = c.input(10);
      for (double& v : input) v = round_to(heavy ? v * v * v : v, c.values);
      const Tensor values(input, c.values, c.offset);
      const Tensor decoded = decode(c, encode(c, values, {}), accumulator_of(c.as));
      for (std::size_t begin = 0; begin < c.count; begin += block) {
        double most = 0;
        for (std::size_t i = begin; i < std::min(c.count, begin + block); ++i)
          most = std::fmax(most, std::abs(values[i]));
        for (std::size_t i = begin; i < std::min(c.count, begin + block); ++i) {
          ASSERT_LE(std::abs(values[i] - decoded[i]), *bound * most) << i;
        }
      }
    }
  }
}

/// Unbiased codecs: the mean over many calls is the value, to what chance allows.
TEST(Traits, UnbiasedCodecsAreRightInTheMean) {
  int checked = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (!codec->traits().unbiased || codec->traits().lossless) continue;
    SCOPED_TRACE(spec);
    ++checked;
    const std::size_t count = 2 * codec->traits().block + 7;
    const Tensor values(normal_values(count, DType::f32, 11, 0), DType::f32);
    std::vector<double> sums(count);
    std::vector<double> squares(count);
    double largest = 0;
    constexpr std::uint64_t kCalls = 2000;
    Tensor decoded(count, DType::f32);
    Bytes message(codec->max_bytes(count, DType::f32));
    for (std::uint64_t call = 0; call < kCalls; ++call) {
      const std::size_t bytes = codec->encode(values.view(), {}, message, DType::f32, 1.0, {.random = {.call = call}});
      codec->decode(std::span(message).first(bytes), decoded.view());
      for (std::size_t i = 0; i < count; ++i) {
        sums[i] += decoded[i] - values[i];
        squares[i] += std::pow(decoded[i] - values[i], 2);
        largest = std::fmax(largest, std::abs(decoded[i] - values[i]));
      }
    }
    double chi2 = 0;
    for (std::size_t i = 0; i < count; ++i) {
      // the mean's standard deviation, from the sample and one large error more: what is rare may not be in
      // it
      const double deviation =
          std::sqrt(squares[i] + largest * largest) / kCalls + 1e-7 * std::abs(values[i]);
      ASSERT_LE(std::abs(sums[i] / kCalls), 6 * deviation) << "element " << i << ", " << values[i];
      chi2 += std::pow(sums[i] / kCalls / deviation, 2);
    }
    EXPECT_LT(chi2 / static_cast<double>(count), 1.3) << "many elements a little off";
  }
  EXPECT_GE(checked, 3);
}

/// The same key draws the same; another call, stream, position or seed draws something else.
TEST(Traits, RandomNumbersBelongToTheirKey) {
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (!codec->traits().unbiased || codec->traits().lossless) continue;
    SCOPED_TRACE(spec);
    const std::size_t count = codec->traits().block + 70;
    const Tensor values(normal_values(count, DType::f32, 12, 0), DType::f32);
    const auto draw = [&](const Codec& by, const RandomKey& key) {
      Bytes message(by.max_bytes(count, DType::f32));
      message.resize(by.encode(values.view(), {}, message, DType::f32, 1.0, {key}));
      return Bytes(message.begin() + 16, message.end());
    };
    const RandomKey here{3, 4, 512};
    EXPECT_EQ(draw(*codec, here), draw(*codec, here));
    for (const RandomKey& other :
         {RandomKey{4, 4, 512}, RandomKey{3, 5, 512}, RandomKey{3, 4, 576}, RandomKey{3, 4, 513},
          RandomKey{3 + (std::uint64_t{1} << 32), 4, 512}, RandomKey{3, 4, 512 + (std::uint64_t{1} << 40)}}) {
      EXPECT_NE(draw(*codec, here), draw(*codec, other));
    }
    std::string other_seed = codec->spec();
    const auto seeded = make_codec(other_seed.insert(other_seed.find("seed=") + 5, 1, '1'));
    EXPECT_NE(draw(*codec, here), draw(*seeded, here));
  }
}

/// A piece that starts at a block gives the same bytes as the same elements within the whole. Codecs that
/// encode only a whole take pieces out of its message, if they can.
TEST(RoundTrip, PiecesAreEncodedAsPartsOfTheWhole) {
  for (const Case& c : cases()) {
    const std::size_t block = c.codec->traits().block;
    const CodecTraits& traits = c.codec->traits();
    if (c.count < 2 * block || c.count > 3000 || (traits.whole_tensor && !traits.splittable)) continue;
    SCOPED_TRACE(c.text());
    const Tensor values(c.input(9), c.values, c.offset);
    const Bytes all = encode(c, values, {});
    const Tensor whole = decode(c, all, accumulator_of(c.as));
    const std::size_t cut = c.count / 2 / block * block;
    for (const auto& [begin, n] : {std::pair{std::size_t{0}, cut}, std::pair{cut, c.count - cut}}) {
      Bytes message(c.codec->max_bytes(n, c.as));
      message.resize(traits.whole_tensor ? CodecAccess(*c.codec).split(all, c.count, c.as, begin, n, message)
                                         : c.codec->encode(values.view().slice(begin, n), {}, message, c.as,
                                                           1.0, {.random = {.position = begin}}));
      Tensor part(n, accumulator_of(c.as));
      c.codec->decode(message, part.view());
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(part[i], whole[begin + i]) << begin + i;
    }
  }
}

template <class F>
std::string code_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return std::string(name(error.code()));
  }
  return "accepted";
}

/// Any part, down to one element and none; padding bits do not show. And what is no part is refused.
TEST(Part, IsAMessageOfItsOwn) {
  std::size_t parted = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    SCOPED_TRACE(spec);
    const DType dtype = DType::f32;
    const std::size_t count = 8 * codec->traits().block + 5;
    const Tensor values(normal_values(count, dtype, 1, 0), dtype);
    Bytes message(codec->max_bytes(count, dtype));
    message.resize(codec->encode(values.view(), {}, message));
    Bytes out(codec->max_bytes(count, dtype));
    const auto take = [&](std::size_t first, std::size_t n) {
      return CodecAccess(*codec).split(message, count, dtype, first, n,
                                       std::span(out).first(codec->max_bytes(n, dtype)));
    };
    EXPECT_TRUE(codec->traits().whole_tensor || !codec->traits().splittable);
    if (!codec->traits().splittable) {
      EXPECT_EQ(code_of([&] { take(0, count); }), "unsupported");
      continue;
    }
    ++parted;
    Tensor decoded(count, dtype);
    codec->decode(message, decoded.view());
    for (const std::size_t first : {std::size_t{0}, std::size_t{8}, std::size_t{64}}) {
      for (std::size_t n = 0; n <= count - first; ++n) {
        const std::size_t bytes = take(first, n);
        ASSERT_EQ(bytes, codec->max_bytes(n, dtype));
        Tensor part(n, dtype);
        codec->decode(std::span(out).first(bytes), part.view());
        for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(part[i], decoded[first + i]) << first << " " << n;
      }
    }
    EXPECT_EQ(code_of([&] { take(1, 8); }), "invalid_argument");
    EXPECT_EQ(code_of([&] { take(8, count); }), "invalid_argument");
    EXPECT_EQ(code_of([&] { take(~std::size_t{7}, 16); }), "invalid_argument");
    EXPECT_EQ(code_of([&] {
                CodecAccess(*codec).split(message, count, dtype, 0, count, std::span(out).first(20));
              }),
              "invalid_argument");
    EXPECT_EQ(code_of([&] { CodecAccess(*codec).split(message, count + 1, dtype, 0, 8, out); }),
              "corrupt_data");
    message.resize(20);
    EXPECT_EQ(code_of([&] { take(64, 5); }), "corrupt_data");
    Tensor infinite(values);
    infinite.set(3, HUGE_VAL);
    message.resize(codec->max_bytes(count, dtype));
    message.resize(codec->encode(infinite.view(), {}, message));
    EXPECT_EQ(take(8, 8), message.size());
    EXPECT_TRUE(is_flagged(out)) << "a part of a flagged message is flagged";
  }
  EXPECT_EQ(parted, 1u);
}

TEST(Encode, RefusesWhatDoesNotFit) {
  for (const std::string& spec : all_specs()) {
    SCOPED_TRACE(spec);
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      SCOPED_TRACE(name(dtype));
      const DType accumulator = accumulator_of(dtype);
      const Tensor values(normal_values(100, dtype, 1, 0), dtype);
      Tensor residual(100, accumulator);
      Bytes out(codec->max_bytes(100, dtype));
      const auto encode = [&](ConstView v, View e, std::span<std::byte> o) { codec->encode(v, e, o, dtype); };
      if (!codec->supports(dtype)) {
        EXPECT_EQ(code_of([&] { encode(values.view(), {}, out); }), "unsupported");
        continue;
      }
      EXPECT_EQ(code_of([&] { encode(values.view(), residual.view(), out); }), "accepted");
      if (codec->traits().fixed_size) {
        EXPECT_EQ(code_of([&] { encode(values.view(), {}, std::span(out).first(out.size() - 1)); }),
                  "invalid_argument");
      }
      EXPECT_EQ(code_of([&] { encode(values.view(), {}, {}); }), "invalid_argument");
      EXPECT_EQ(code_of([&] {
                  encode({values.view().data, 100, dtype, Memory::cuda}, {}, out);
                }),
                codec->supports(Memory::cuda) ? "invalid_argument" : "unsupported");
      if (!codec->traits().lossless) {
        EXPECT_EQ(code_of([&] { encode(values.view(), residual.view().slice(0, 99), out); }),
                  "invalid_argument");
        Tensor other(100, accumulator == DType::f64 ? DType::f32 : DType::f64);
        EXPECT_EQ(code_of([&] { encode(values.view(), other.view(), out); }), "invalid_argument");
      }
      const Tensor foreign(100, dtype == DType::f64 ? DType::f32 : DType::f64);
      EXPECT_EQ(code_of([&] { encode(foreign.view(), {}, out); }), "invalid_argument");
    }
  }
}

}  // namespace
}  // namespace terse::test
