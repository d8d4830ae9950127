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
#include "support/sixteenths.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

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
