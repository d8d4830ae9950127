// SPDX-License-Identifier: Apache-2.0
//
// topk and threshold: which elements they keep, to the last tie; its bytes, worked out by hand; and bytes
// that it never writes. What it has in common with other codecs is tested with those.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "core/bytes.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::size_t kHeader = 16;
constexpr std::size_t kLarge = 300'001;  // enough to begin with an estimate

Bytes bytes(std::initializer_list<int> values) {
  Bytes list;
  for (const int v : values) list.push_back(static_cast<std::byte>(v));
  return list;
}

Bytes floats(std::initializer_list<float> values) {
  Bytes list(values.size() * sizeof(float));
  std::memcpy(list.data(), std::data(values), list.size());
  return list;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes encode(const Codec& codec, const Tensor& values, View residual = {}) {
  Bytes message(codec.max_bytes(values.count(), values.dtype()));
  message.resize(codec.encode(values.view(), residual, message));
  return message;
}

Bytes payload_of(const Bytes& message) { return {message.begin() + kHeader, message.end()}; }

std::vector<double> decode(const Codec& codec, const Bytes& message, std::size_t count, DType dtype) {
  Tensor out(count, dtype, 1);
  codec.decode(message, out.view());
  EXPECT_TRUE(out.guards_intact());
  return out.doubles();
}

std::vector<double> sparse(std::size_t count, const std::vector<std::pair<std::size_t, double>>& elements) {
  std::vector<double> values(count);
  for (const auto& [i, v] : elements) values[i] = v;
  return values;
}

/// Distances: a gap of 300 is 0xAC 0x02, one of 0 is 0x00, from the start 3.
TEST(Topk, WritesTheBytesOfTheDescription) {
  const auto codec = make_codec("topk:ratio=0.005");
  Tensor values(sparse(600, {{3, -2.0}, {304, 1.5}, {305, 7.0}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)), bytes({1, 3, 0xAC, 0x02, 0}) + floats({-2.0f, 1.5f, 7.0f}));

  // half of them: a bitmap is shorter, elements 1, 3, 5, 7, 8 and 10 of 11
  const auto half = make_codec("topk:ratio=0.5");
  values = Tensor(std::vector<double>{1, -9, 2, 8, -1, 7, 0, -6, 5, 3, 4}, DType::f32);
  EXPECT_EQ(payload_of(encode(*half, values)), bytes({0, 0xAA, 0x05}) + floats({-9, 8, 7, -6, 5, 4}));

  // blocks of 12 with 4 bits an index: 3 of 12, 1 of 3 with 2 bits
  const auto blocks = make_codec("topk:ratio=0.25,block=12");
  values = Tensor(sparse(15, {{1, 1.0}, {7, -2.0}, {11, 3.0}, {14, 4.0}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*blocks, values)),
            bytes({0x71, 0x0B}) + floats({1, -2, 3}) + bytes({0x02}) + floats({4}));

  // with an inner codec, its payload of the three values
  const auto signs = make_codec("topk:ratio=0.005+onebit:block=8");
  values = Tensor(sparse(600, {{3, -2.0}, {304, 1.0}, {305, 3.0}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*signs, values)), bytes({1, 3, 0xAC, 0x02, 0}) + floats({2}) + bytes({1}));
  EXPECT_EQ(decode(*signs, encode(*signs, values), 600, DType::f32),
            sparse(600, {{3, -2.0}, {304, 2.0}, {305, 2.0}}));
}

/// As topk's, behind how many there are; no zeros, and nothing where all are.
TEST(Threshold, WritesTheBytesOfTheDescription) {
  const auto codec = make_codec("threshold:ratio=0.005");
  Tensor values(sparse(600, {{3, -2.0}, {304, 1.5}, {305, 7.0}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)),
            bytes({3, 1, 3, 0xAC, 0x02, 0}) + floats({-2.0f, 1.5f, 7.0f}));
  values = Tensor(sparse(600, {{3, -2.0}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)), bytes({1, 1, 3}) + floats({-2.0f}));
  // four are as large as the third largest
  values = Tensor(sparse(600, {{0, 1.0}, {1, -2.0}, {2, 1.0}, {3, 2.0}, {4, 1.0}, {5, 0.5}}), DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)), bytes({5, 1, 0, 0, 0, 0, 0}) + floats({1, -2, 1, 2, 1}));
  // more than six are
  values = Tensor(std::vector<double>(600, 3.0), DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)), bytes({6, 1, 0, 0, 0, 0, 0, 0}) + floats({3, 3, 3, 3, 3, 3}));
  values = Tensor(600, DType::f32);
  EXPECT_EQ(payload_of(encode(*codec, values)), bytes({0}));
  EXPECT_EQ(decode(*codec, encode(*codec, values), 600, DType::f32), std::vector<double>(600));
}

TEST(Topk, SaysWhatItIs) {
  const auto whole = make_codec("topk");
  EXPECT_EQ(whole->spec(), "topk:ratio=0.01");
  EXPECT_TRUE(whole->traits().whole_tensor && whole->traits().sparse && whole->traits().contractive);
  EXPECT_FALSE(whole->traits().fixed_size || whole->traits().splittable || whole->traits().lossless);
  const auto blocks = make_codec("topk:block=1024");
  EXPECT_EQ(blocks->spec(), "topk:ratio=0.01,block=1024");
  EXPECT_TRUE(blocks->traits().fixed_size && blocks->traits().sparse);
  EXPECT_FALSE(blocks->traits().whole_tensor);
  EXPECT_EQ(blocks->traits().block, 1024u);
  EXPECT_EQ(make_codec("topk+onebit:block=64")->spec(), "topk:ratio=0.01+onebit:block=64,scale=l1");
  EXPECT_FALSE(make_codec("topk+onebit:scale=rms")->traits().contractive);
  EXPECT_FALSE(make_codec("topk+cast:bf16")->supports(DType::f64));
}

/// With a state, as a Feedback keeps it: what is found in the first call serves the next ones.
TEST(Threshold, IsUsedAgain) {
  constexpr std::size_t kCount = 40000;
  constexpr std::size_t kWanted = 400;  // ratio 0.01
  const auto codec = make_codec("threshold:ratio=0.01,reuse=3");
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const DType kept : {accumulator_of(dtype), DType::bf16}) {
      if (dtype == DType::f64 && kept != accumulator_of(dtype)) continue;
      const auto input = normal_values(kCount, dtype, 1, 0);
      Bytes state(codec->state_bytes(kCount, dtype));
      ASSERT_EQ(state.size(), 16u);
      EncodeContext other;
      other.state = std::span(state).first(8);
      Bytes room(codec->max_bytes(kCount, dtype));
      const Tensor unsent(input, dtype);
      try {
        codec->encode(unsent.view(), {}, room, dtype, 1.0, other);
        ADD_FAILURE() << "a state of another size was taken";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument) << error.what();
      }
      const auto threshold = [&] { return load<double>(state.data()); };
      const auto uses = [&] { return load<std::uint64_t>(state.data() + 8); };
      const auto call = [&](double scale, bool with_state) {
        std::vector<double> scaled = input;
        for (double& v : scaled) v = round_to(scale * v, dtype);
        const Tensor values(scaled, dtype);
        Tensor residual(kCount, kept);
        EncodeContext context;
        if (with_state) context.state = state;
        Bytes message(codec->max_bytes(kCount, dtype));
        message.resize(codec->encode(values.view(), residual.view(), message, dtype, 1.0, context));
        const auto sent = decode(*codec, message, kCount, dtype);
        for (std::size_t i = 0; i < kCount; ++i) {
          EXPECT_EQ(sent[i] + residual[i], sent[i] != 0 ? scaled[i] : round_to(scaled[i], kept)) << i;
        }
        return sent;
      };
      const auto sent_of = [](const std::vector<double>& values, double least) {
        std::vector<double> sent = values;
        for (double& v : sent) v = std::abs(v) >= least ? v : 0;
        return sent;
      };
      const auto scaled = [&](double scale) {
        std::vector<double> values = input;
        for (double& v : values) v = round_to(scale * v, dtype);
        return values;
      };
      EXPECT_EQ(call(1.0, true), call(1.0, false));
      const double found = threshold();
      EXPECT_EQ(uses(), 1u);
      EXPECT_EQ(call(1.1, true), sent_of(scaled(1.1), found));
      EXPECT_EQ(call(0.95, true), sent_of(scaled(0.95), found));
      EXPECT_EQ(threshold(), found);
      EXPECT_EQ(uses(), 3u);
      // three calls are over
      EXPECT_EQ(call(1.1, true), call(1.1, false));
      EXPECT_EQ(uses(), 1u);
      EXPECT_NEAR(threshold(), 1.1 * found, 1e-3 * found);
      // less than half would be kept: found anew at once
      EXPECT_EQ(call(0.5, true), call(0.5, false));
      EXPECT_EQ(uses(), 1u);
      EXPECT_NEAR(threshold(), 0.5 * found, 1e-3 * found);
      // so many are that not all can be: the largest, and the next call begins anew
      const auto most = call(4.0, true);
      EXPECT_EQ(std::count_if(most.begin(), most.end(), [](double v) { return v != 0; }), 2 * kWanted);
      EXPECT_EQ(threshold(), 0.0);
      EXPECT_EQ(call(4.0, true), call(4.0, false));
      EXPECT_NEAR(threshold(), 4 * found, 1e-3 * found);
      // nothing is kept of zeros
      EXPECT_EQ(call(0.0, true), std::vector<double>(kCount));
      EXPECT_EQ(call(1.0, true), call(1.0, false));
    }
  }
}

/// The same elements as a stable sort by magnitude keeps, and the residual is all the rest.
void expect_exact(const std::string& spec, const std::vector<double>& input, DType dtype) {
  const auto codec = make_codec(spec);
  const Tensor values(input, dtype, 1);
  const DType accumulator = accumulator_of(dtype);
  for (const bool feedback : {false, true}) {
    Tensor residual(input.size(), accumulator, 1);
    const Bytes message = encode(*codec, values, feedback ? residual.view() : View{});
    ASSERT_FALSE(is_flagged(message));
    const auto got = decode(*codec, message, input.size(), dtype);
    const auto want = expected_decode(*codec, values.doubles(), dtype).values;
    for (std::size_t i = 0; i < input.size(); ++i) {
      ASSERT_EQ(got[i], want[i]) << spec << ", " << input.size() << " " << name(dtype) << ", element " << i;
      if (feedback) {
        ASSERT_EQ(residual[i], values[i] - want[i]) << i;
      }
    }
  }
}

TEST(Topk, TiesGoToTheFirst) {
  for (const char* spec : {"topk:ratio=0.3", "topk:ratio=0.3,block=16", "topk:ratio=0.003", "topk:ratio=1",
                           "threshold:ratio=0.1", "threshold:ratio=1"}) {
    for (const DType dtype : kAllDTypes) {
      for (const std::size_t count : {1u, 2u, 15u, 16u, 17u, 100u, 9001u}) {
        std::vector<double> values(count, 0.0);
        expect_exact(spec, values, dtype);  // all zero
        for (double& v : values) v = -2.5;
        expect_exact(spec, values, dtype);  // all equal
        for (std::size_t i = 0; i < count; ++i) values[i] = i % 3 == 0 ? 1 : i % 3 == 1 ? -1 : 0.5;
        expect_exact(spec, values, dtype);
        for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<double>(i % 7) - 3;
        expect_exact(spec, values, dtype);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(Topk, DenormalsAndTheLargestAreOrderedToo) {
  for (const char* spec : {"topk:ratio=0.25", "topk:ratio=0.25,block=8"}) {
    const double tiny = std::numeric_limits<float>::denorm_min();
    std::vector<double> values = {tiny, -3 * tiny, 2 * tiny, 0, -0.0, 5 * tiny, -tiny, 4 * tiny};
    expect_exact(spec, values, DType::f32);
    const double most = std::numeric_limits<float>::max();
    values = {most, -most, 1, most, std::nextafter(most, 0), -most, 0, 2};
    for (double& v : values) v = round_to(v, DType::f32);
    expect_exact(spec, values, DType::f32);
    if (HasFatalFailure()) return;
  }
}

TEST(Topk, ExactWhateverTheDistribution) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  std::cauchy_distribution<double> heavy;
  const auto make = [&](auto&& value) {
    std::vector<double> values(kLarge);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = round_to(value(i), DType::f32);
    return values;
  };
  const std::vector<std::pair<const char*, std::vector<double>>> data = {
      {"normal", make([&](std::size_t) { return normal(random); })},
      {"heavy tails", make([&](std::size_t) { return heavy(random); })},
      {"constant", make([](std::size_t) { return 0.125; })},
      {"zeros", make([](std::size_t) { return 0.0; })},
      {"rising", make([](std::size_t i) { return static_cast<double>(i); })},
      {"falling", make([](std::size_t i) { return -static_cast<double>(kLarge - i); })},
      // an estimate from neighbours at even distances is far too high, and far too low
      {"large where the sample is", make([](std::size_t i) {
         return i % (kLarge / 512) < 64 ? 10.0 + static_cast<double>(i % 5)
                                        : 1.0 / static_cast<double>(i + 1);
       })},
      {"small where the sample is", make([](std::size_t i) {
         return i % (kLarge / 512) < 64 ? 1e-3 : 1.0 + static_cast<double>(i % 1000);
       })},
      {"layers", make([&](std::size_t i) {
         const std::size_t layer = i * 12 / kLarge;
         return normal(random) * std::exp2(static_cast<double>(layer) - 6);
       })},
      {"few that are not zero",
       make([](std::size_t i) { return i % 5000 == 17 ? static_cast<double>(i) : 0.0; })},
  };
  for (const auto& [what, values] : data) {
    SCOPED_TRACE(what);
    for (const char* spec :
         {"topk:ratio=0.01", "topk:ratio=0.0001", "topk:ratio=0.3", "topk:ratio=0.01,block=1000"}) {
      expect_exact(spec, values, DType::f32);
      if (HasFatalFailure()) return;
    }
    for (const char* spec :
         {"threshold:ratio=0.01", "threshold:ratio=0.2", "threshold:ratio=0.03+cast:bf16"}) {
      expect_exact(spec, values, DType::f32);
    }
    expect_exact("topk:ratio=0.01", values, DType::f64);
    std::vector<double> halves = values;
    for (double& v : halves) v = std::clamp(v, -60000.0, 60000.0);
    expect_exact("topk:ratio=0.01", halves, DType::f16);
    if (HasFatalFailure()) return;
  }
}

/// Against std::nth_element: what is kept is at least the k-th largest, what is not at most.
TEST(Topk, KeepsOneInAHundred) {
  const std::size_t count = kLarge;
  const std::vector<double> values = normal_values(count, DType::f32, 3, 0);
  const auto codec = make_codec("topk:ratio=0.01");
  const Bytes message = encode(*codec, Tensor(values, DType::f32));
  const auto got = decode(*codec, message, count, DType::f32);
  std::vector<double> magnitudes;
  for (const double v : values) magnitudes.push_back(std::abs(v));
  const std::size_t k = (count + 99) / 100;
  std::nth_element(magnitudes.begin(), magnitudes.begin() + static_cast<std::ptrdiff_t>(k - 1),
                   magnitudes.end(), std::greater<>());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) {
    kept += got[i] != 0;
    if (got[i] != 0) {
      ASSERT_GE(std::abs(got[i]), magnitudes[k - 1]);
    } else {
      ASSERT_LE(std::abs(values[i]), magnitudes[k - 1]);
    }
  }
  EXPECT_EQ(kept, k);
  EXPECT_LT(static_cast<double>(message.size()), 5.4 * static_cast<double>(k))
      << "4 bytes and a distance each";
}

TEST(Topk, MaxBytesIsReachedAndNeverPassed) {
  // distances as long as they can be, and as many as there can be
  for (const auto& [spec, count] :
       {std::pair{"topk:ratio=0.001", 200'000u}, std::pair{"topk:ratio=0.007", 9000u},
        std::pair{"topk:ratio=0.01", 100u}, std::pair{"topk:ratio=0.3", 1000u}}) {
    const auto codec = make_codec(spec);
    const std::size_t k = topk_kept(spec, count);
    std::vector<double> values(count);
    std::vector<std::size_t> gaps(k);
    std::size_t left = count - k;
    for (const std::size_t longer : {std::size_t{128}, std::size_t{16384}}) {
      for (std::size_t& gap : gaps) {
        if (left < longer - gap) break;
        left -= longer - gap;
        gap = longer;
      }
    }
    std::size_t at = 0;
    for (const std::size_t gap : gaps) {
      at += gap;
      values[at++] = 1.0;
    }
    const std::size_t most = codec->max_bytes(count, DType::f32);
    EXPECT_EQ(encode(*codec, Tensor(values, DType::f32)).size(), most) << spec;
    EXPECT_GE(encode(*codec, Tensor(values, DType::f32)).size() + 2, most) << spec << ": not tight";
  }
}

std::string code_of(const Codec& codec, const Bytes& message, std::size_t count) {
  Bytes exact = message;
  exact.shrink_to_fit();
  Tensor out(count, DType::f32, 1);
  std::string code = "accepted";
  try {
    codec.decode(exact, out.view());
  } catch (const Error& error) {
    code = name(error.code());
  }
  EXPECT_TRUE(out.guards_intact());
  return code;
}

TEST(Topk, RefusesWhatItNeverWrites) {
  const auto codec = make_codec("topk:ratio=0.005");
  const Bytes good = encode(*codec, Tensor(sparse(600, {{3, -2.0}, {304, 1.5}, {305, 7.0}}), DType::f32));
  const Bytes header(good.begin(), good.begin() + kHeader);
  const Bytes three = floats({-2.0f, 1.5f, 7.0f});
  EXPECT_EQ(code_of(*codec, header + bytes({1, 3, 0xAC, 0x02, 0}) + three, 600), "accepted");
  const std::vector<std::pair<const char*, Bytes>> bad = {
      {"no such form", bytes({2, 3, 0xAC, 0x02, 0}) + three},
      {"a value too few", bytes({1, 3, 0xAC, 0x02, 0}) + floats({1, 2})},
      {"a value too many", bytes({1, 3, 0xAC, 0x02, 0}) + floats({1, 2, 3, 4})},
      {"beyond the end", bytes({1, 3, 0xAC, 0x02, 0xFF, 0x7F}) + three},
      {"the one behind the last", bytes({1, 0xD6, 0x04, 0, 0}) + three},
      {"a distance that goes on and on",
       bytes({1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}) + three},
      {"a distance that wraps around",
       bytes({1, 3, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}) + three},
      {"a distance longer than need be", bytes({1, 0x83, 0, 0, 0}) + three},
      {"cut within a distance", bytes({1, 3, 0xAC})},
      {"not a number", bytes({1, 3, 0xAC, 0x02, 0}) + floats({1, std::nanf(""), 3})},
      {"infinite", bytes({1, 3, 0xAC, 0x02, 0}) + floats({1, 2, -HUGE_VALF})},
      {"nothing", {}},
  };
  for (const auto& [what, payload] : bad)
    EXPECT_EQ(code_of(*codec, header + payload, 600), "corrupt_data") << what;

  const auto threshold = make_codec("threshold:ratio=0.005");
  const Bytes sound = encode(*threshold, Tensor(sparse(600, {{3, -2.0}}), DType::f32));
  const Bytes front(sound.begin(), sound.begin() + kHeader);
  EXPECT_EQ(code_of(*threshold, front + bytes({1, 1, 3}) + floats({1}), 600), "accepted");
  EXPECT_EQ(code_of(*threshold, front + bytes({0}), 600), "accepted");
  for (const Bytes& payload :
       {Bytes{}, bytes({1}), bytes({0, 0}), bytes({2, 1, 3}) + floats({1}), bytes({1, 1, 3}) + floats({1, 2}),
        bytes({1, 0x80}), bytes({0x81, 0, 1, 3}) + floats({1}),
        bytes({7, 1, 0, 0, 0, 0, 0, 0, 0}) + floats({1, 2, 3, 4, 5, 6, 7})}) {
    EXPECT_EQ(code_of(*threshold, front + payload, 600), "corrupt_data");
  }

  Bytes bitmap(75);
  bitmap[0] = std::byte{0x0B};
  EXPECT_EQ(code_of(*codec, header + bytes({0}) + bitmap + three, 600), "accepted") << "the other form";
  bitmap[3] = std::byte{1};
  EXPECT_EQ(code_of(*codec, header + bytes({0}) + bitmap + three, 600), "corrupt_data") << "four";
  bitmap[3] = std::byte{0};
  bitmap[0] = std::byte{3};
  EXPECT_EQ(code_of(*codec, header + bytes({0}) + bitmap + three, 600), "corrupt_data") << "two";
  const auto half = make_codec("topk:ratio=0.5");
  const Bytes eleven =
      encode(*half, Tensor(std::vector<double>{1, -9, 2, 8, -1, 7, 0, -6, 5, 3, 4}, DType::f32));
  const Bytes start(eleven.begin(), eleven.begin() + kHeader);
  const Bytes six = floats({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(code_of(*half, start + bytes({0, 0xAA, 0x05}) + six, 11), "accepted");
  EXPECT_EQ(code_of(*half, start + bytes({0, 0xAA, 0x0C}) + six, 11), "corrupt_data") << "padding";

  const auto blocks = make_codec("topk:ratio=0.25,block=12");
  const Bytes whole = encode(*blocks, Tensor(sparse(12, {{1, 1.0}, {7, -2.0}, {11, 3.0}}), DType::f32));
  const Bytes begin(whole.begin(), whole.begin() + kHeader);
  EXPECT_EQ(code_of(*blocks, begin + bytes({0x71, 0x0B}) + three, 12), "accepted");
  EXPECT_EQ(code_of(*blocks, begin + bytes({0x17, 0x0B}) + three, 12), "corrupt_data") << "7, 1, 11";
  EXPECT_EQ(code_of(*blocks, begin + bytes({0x11, 0x0B}) + three, 12), "corrupt_data") << "1, 1, 11";
  EXPECT_EQ(code_of(*blocks, begin + bytes({0x71, 0x0C}) + three, 12), "corrupt_data") << "1, 7, 12";
  EXPECT_EQ(code_of(*blocks, begin + bytes({0x71, 0x1B}) + three, 12), "corrupt_data") << "padding";
}

}  // namespace
}  // namespace terse::test
