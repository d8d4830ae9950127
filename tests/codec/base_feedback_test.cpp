// SPDX-License-Identifier: Apache-2.0
//
// The error feedback that the base class gives to a codec that can only encode and decode.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

enum class Size { fixed, variable };
constexpr std::size_t kWhole = std::numeric_limits<std::size_t>::max();
constexpr double kStep = 0x1p-4;
constexpr double kLimit = 100;  // beyond: not representable

/// Rounds to sixteenths. Fixed: two bytes an element. Variable: a count, then one byte for small numbers and
/// three for others, so that payloads one behind the other are not the payload of the whole.
class Sixteenths final : public Codec {
 public:
  Sixteenths(Size size, std::size_t run)
      : Codec("sixteenths", "sixteenths", traits_of(size)), size_(size), run_(run) {}

  mutable std::size_t encodes = 0;

 private:
  static CodecTraits traits_of(Size size) {
    CodecTraits traits;
    traits.fixed_size = size == Size::fixed;
    traits.block = 4;
    return traits;
  }
  bool do_supports(DType dtype) const noexcept override { return dtype != DType::bf16; }
  std::size_t do_max_bytes(std::size_t count, DType) const override {
    return size_ == Size::fixed ? 2 * count : 8 + 3 * count;
  }
  std::optional<std::size_t> do_encode(ConstView values, DType, std::span<std::byte> payload) const override {
    ++encodes;
    std::size_t at = 0;
    const std::uint64_t count = values.count;
    if (size_ == Size::variable) {
      std::memcpy(payload.data(), &count, 8);
      at = 8;
    }
    for (const double v : doubles_of(values)) {
      if (!(std::abs(v) <= kLimit)) return std::nullopt;
      const auto n = static_cast<std::int16_t>(std::nearbyint(v / kStep));
      if (size_ == Size::variable && std::abs(n) < 127) {
        payload[at++] = std::byte{static_cast<std::uint8_t>(n + 127)};
        continue;
      }
      if (size_ == Size::variable) payload[at++] = std::byte{255};
      std::memcpy(payload.data() + at, &n, 2);
      at += 2;
    }
    return at;
  }
  void do_decode(std::span<const std::byte> payload, DType, View out, Into into,
                 double factor) const override {
    const auto check = [](bool good) {
      if (!good) throw Error(ErrorCode::corrupt_data, "sixteenths: corrupt payload");
    };
    std::size_t at = 0;
    if (size_ == Size::variable) {
      std::uint64_t count = 0;
      check(payload.size() >= 8);
      std::memcpy(&count, payload.data(), 8);
      check(count == out.count);
      at = 8;
    }
    std::vector<double> values = doubles_of(out);
    for (double& v : values) {
      std::int16_t n = 0;
      check(at < payload.size());
      if (size_ == Size::variable && payload[at] != std::byte{255}) {
        n = static_cast<std::int16_t>(std::to_integer<int>(payload[at++]) - 127);
      } else {
        at += size_ == Size::variable;
        check(at + 2 <= payload.size());
        std::memcpy(&n, payload.data() + at, 2);
        at += 2;
      }
      v = (into == Into::add ? v : 0) + n * kStep * factor;
    }
    check(at == payload.size());
    const Tensor result(values, out.dtype);
    if (out.count != 0) std::memcpy(out.data, result.bytes().data(), out.bytes());
  }
  std::size_t do_run() const noexcept override { return run_; }

  Size size_;
  std::size_t run_;
};

struct Case {
  Size size;
  std::size_t run;
  DType as;
  DType values;
  DType residual;
  std::size_t count;

  std::string text() const {
    return std::string(size == Size::fixed ? "fixed" : "variable") + ", run " +
           (run == kWhole ? "whole" : std::to_string(run)) + ", " + std::to_string(count) + " " +
           std::string(name(as)) + " from " + std::string(name(values)) + ", residual " +
           std::string(name(residual));
  }
  /// How near a residual comes to what it was when an encoding that moved values of this size is taken back.
  double undo_slack(double moved) const {
    return 4 * unit_roundoff(accumulator_of(as)) * moved +
           (residual == DType::bf16 ? 1.01 * unit_roundoff(residual) * (kStep / 2 + 0.1) : 0);
  }
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const Size size : {Size::fixed, Size::variable}) {
    for (const std::size_t run : {std::size_t{4}, std::size_t{12}, std::size_t{5000}, kWhole}) {
      for (const DType as : {DType::f32, DType::f64, DType::f16}) {
        for (const std::size_t count : {0u, 1u, 3u, 4u, 5u, 4095u, 4096u, 4097u, 12289u}) {
          list.push_back({size, run, as, as, accumulator_of(as), count});
          if (as != DType::f64) list.push_back({size, run, as, as, DType::bf16, count});
          if (as == DType::f16) list.push_back({size, run, as, DType::f32, DType::f32, count});
          if (as == DType::f16) list.push_back({size, run, as, DType::f32, DType::bf16, count});
        }
      }
    }
  }
  return list;
}

std::vector<std::byte> encode(const Codec& codec, const Case& c, ConstView values, View residual) {
  std::vector<std::byte> message(codec.max_bytes(c.count, c.as));
  message.resize(codec.encode(values, residual, message, c.as));
  return message;
}

TEST(BaseFeedback, EqualsEncodingTheSumAtOnce) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.text());
    const Sixteenths codec(c.size, c.run);
    const DType accumulator = accumulator_of(c.as);
    const Tensor values(normal_values(c.count, c.values, 1, 0, 5), c.values, 1);
    const Tensor old(normal_values(c.count, c.residual, 2, 0, 0.02), c.residual, 1);
    const Tensor v(add_in(accumulator, values.doubles(), old.doubles()), accumulator);
    Tensor residual = old;
    const auto message = encode(codec, c, values.view(), residual.view());
    ASSERT_EQ(message, encode(codec, c, v.view(), {}));
    Tensor decoded(c.count, accumulator);
    codec.decode(message, decoded.view());
    for (std::size_t i = 0; i < c.count; ++i) {
      ASSERT_EQ(decoded[i], std::nearbyint(v[i] / kStep) * kStep) << i;
      ASSERT_EQ(residual[i], round_to(round_to(v[i] - decoded[i], accumulator), c.residual)) << i;
    }
    codec.undo(message, values.view(), residual.view());
    for (std::size_t i = 0; i < c.count; ++i) {
      ASSERT_NEAR(residual[i], old[i], c.undo_slack(std::abs(v[i]) + 1)) << i;
    }
    EXPECT_TRUE(residual.guards_intact());
  }
}

/// Where fixed runs allow it, the base class works in pieces that fit a cache.
TEST(BaseFeedback, WorksRunByRunWhereItMay) {
  const std::size_t count = 100000;
  Tensor residual(count, DType::f32);
  const Tensor values(count, DType::f32);
  for (const auto& [run, least] :
       {std::pair{std::size_t{4}, std::size_t{8}}, std::pair{kWhole, std::size_t{1}}}) {
    const Sixteenths codec(Size::fixed, run);
    encode(codec, {Size::fixed, run, DType::f32, DType::f32, DType::f32, count}, values.view(),
           residual.view());
    EXPECT_GE(codec.encodes, least);
    EXPECT_LE(codec.encodes, run == kWhole ? 1u : count / 1000);
  }
}

TEST(BaseFeedback, AValueBeyondTheRangeLeavesTheResidual) {
  for (const Case& c : cases()) {
    if (c.count == 0) continue;
    const Sixteenths codec(c.size, c.run);
    for (const std::size_t at : {std::size_t{0}, c.count / 2, c.count - 1}) {
      for (const double bad : {1000.0, -std::numeric_limits<double>::infinity(), std::nan("")}) {
        SCOPED_TRACE(c.text() + ", " + std::to_string(bad) + " at " + std::to_string(at));
        std::vector<double> input = normal_values(c.count, c.values, 3, 0, 5);
        input[at] = bad;
        const Tensor values(input, c.values, 1);
        const Tensor old(normal_values(c.count, c.residual, 4, 0, 0.02), c.residual, 1);
        Tensor residual = old;
        const auto message = encode(codec, c, values.view(), residual.view());
        ASSERT_TRUE(is_flagged(message));
        ASSERT_EQ(message.size(), codec.max_bytes(0, c.as)) << "more than a header";
        for (std::size_t i = 0; i < c.count; ++i) {
          ASSERT_NEAR(residual[i], old[i], c.undo_slack(100)) << i;
        }
        const Tensor before = residual;
        codec.undo(message, values.view(), residual.view());
        ASSERT_TRUE(residual.same_bits(before));
        ASSERT_TRUE(residual.guards_intact());
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
