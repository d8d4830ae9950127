// SPDX-License-Identifier: Apache-2.0
//
// Values that are not finite, or beyond a codec's range, are never laundered into numbers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

Bytes encode(const Codec& codec, ConstView values, View residual, DType as) {
  Bytes message(codec.max_bytes(values.count, as));
  message.resize(codec.encode(values, residual, message, as));
  return message;
}

void expect_flagged(const Codec& codec, const Bytes& message, std::size_t count, DType as) {
  ASSERT_TRUE(is_flagged(message));
  ASSERT_EQ(message.size(), 16u) << "a flagged message is a header";
  Tensor out(count, as);
  try {
    codec.decode(message, out.view());
    FAIL() << "decoded";
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), ErrorCode::non_finite);
  }
}

/// One bad value in any position, in the values or owed by the residual.
TEST(NonFinite, IsFlaggedInEveryPosition) {
  std::vector<std::string> specs = {"onebit:block=64",
                                    "onebit:block=24",
                                    "onebit:scale=rms,block=64",
                                    "cast:f16",
                                    "cast:bf16",
                                    "cast:f8e4m3",
                                    "cast:f8e5m2",
                                    "quant:block=64",
                                    "quant:bits=2,block=64,range=symmetric",
                                    "quant:rounding=stochastic,block=64",
                                    "ternary:block=64",
                                    "natural:block=64",
                                    "sum8:block=64",
                                    "sum4:block=64",
                                    "topk:ratio=0.05",
                                    "topk:ratio=0.05,block=32",
                                    "threshold:ratio=0.05",
                                    "randomk:ratio=0.1,block=32",
                                    "topk:ratio=0.1+cast:bf16",
                                    "hadamard:block=64+onebit:block=64",
                                    "hadamard:block=16+cast:f16"};
  if (has_row("zfp")) specs.insert(specs.end(), {"zfp:rate=8", "zfp:rate=5.25", "zfp:accuracy=0.001"});
  if (has_row("lossless")) specs.insert(specs.end(), {"onebit:block=64+lossless", "cast:f16+lossless"});
  for (const std::string& spec : specs) {
    const auto codec = make_codec(spec);
    for (const DType as : kAllDTypes) {
      if (!codec->supports(as)) continue;
      const DType accumulator = accumulator_of(as);
      const std::size_t count = 150;
      const std::vector<double> clean = normal_values(count, as, 1, 0);
      for (std::size_t at = 0; at < count; ++at) {
        for (const double bad : {kNan, kInfinity, -kInfinity}) {
          for (const bool in_residual : {false, true}) {
            const ResidualType type = at % 2 == 0 ? ResidualType::full : ResidualType::bf16;
            const DType kept = residual_of(as, type);
            const Tensor old(normal_values(count, kept, 2, 0, 0.3), kept, 1);
            SCOPED_TRACE(spec + " of " + std::string(name(as)) + ", " + std::to_string(bad) + " at " +
                         std::to_string(at) + (in_residual ? " of the residual" : ""));
            Tensor values(clean, as, 1);
            Tensor residual = old;
            (in_residual ? residual : values).set(at, bad);
            const Tensor values_before = values;
            const Tensor residual_before = residual;
            const Bytes message = encode(*codec, values.view(), residual.view(), as);
            expect_flagged(*codec, message, count, as);
            ASSERT_TRUE(values.same_bits(values_before));
            for (std::size_t i = 0; i < count; ++i) {
              if (in_residual && i == at) {
                ASSERT_FALSE(std::isfinite(residual[i]));
              } else {
                const double moved = kept == DType::bf16 ? 4 * unit_roundoff(kept) : 0;
                ASSERT_NEAR(residual[i], old[i], 16 * unit_roundoff(accumulator) + moved) << i;
              }
            }
            const Tensor after = residual;
            codec->undo(message, values.view(), residual.view());
            ASSERT_TRUE(residual.same_bits(after)) << "undo of a flagged message";
            if (!in_residual) {
              ASSERT_TRUE(is_flagged(encode(*codec, values.view(), {}, as))) << "without feedback";
            }
          }
        }
      }
    }
  }
}

TEST(NonFinite, LosslessCodecsPassEveryBitOn) {
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (!codec->traits().lossless) continue;
    for (const DType dtype : kAllDTypes) {
      Tensor values(std::vector<double>{1, kNan, kInfinity, -kInfinity, -0.0, -kNan}, dtype);
      const Bytes message = encode(*codec, values.view(), {}, dtype);
      EXPECT_FALSE(is_flagged(message));
      Tensor out(values.count(), dtype);
      codec->decode(message, out.view());
      EXPECT_TRUE(out.same_bits(values)) << spec << " " << name(dtype);
    }
  }
}

/// Where the range ends: the largest value that still rounds to a finite one, and the next.
TEST(Overflow, IsFlaggedExactlyWhereRoundingGivesInfinity) {
  struct Row {
    const char* spec;
    DType as;
    DType values;
    float last;  ///< the largest that is still in range
  };
  const float bf16_tie = 0x1.FFp127f;  // half way between the largest bfloat16 and 2^128
  for (const Row& row : {Row{"cast:f16", DType::f32, DType::f32, std::nextafter(65520.0f, 0.0f)},
                         Row{"cast:bf16", DType::f32, DType::f32, std::nextafter(bf16_tie, 0.0f)},
                         Row{"onebit:block=8", DType::f16, DType::f32, std::nextafter(65520.0f, 0.0f)},
                         Row{"randomk", DType::f16, DType::f32, std::nextafter(65520.0f, 0.0f)}}) {
    const auto codec = make_codec(row.spec);
    for (const float sign : {1.0f, -1.0f}) {
      for (const auto& [value, good] :
           {std::pair{row.last, true},
            std::pair{std::nextafter(row.last, std::numeric_limits<float>::infinity()), false},
            std::pair{65504.0f, true}, std::pair{std::numeric_limits<float>::max(), false}}) {
        SCOPED_TRACE(std::string(row.spec) + " " + std::to_string(sign * value));
        const Tensor values(std::vector<double>{sign * value}, row.values);
        Tensor residual(1, DType::f32);
        const Bytes message = encode(*codec, values.view(), residual.view(), row.as);
        EXPECT_EQ(!is_flagged(message), good);
        if (is_flagged(message)) {
          expect_flagged(*codec, message, 1, row.as);
          EXPECT_EQ(residual[0], 0.0);
        } else {
          Tensor out(1, row.as);
          codec->decode(message, out.view());
          EXPECT_TRUE(std::isfinite(out[0]));
          EXPECT_EQ(residual[0], values[0] - out[0]);
        }
      }
    }
  }
  const auto codec = make_codec("cast:f16");
  EXPECT_TRUE(
      is_flagged(encode(*codec, Tensor(std::vector<double>{1, 1e6, 1}, DType::f32).view(), {}, DType::f32)));
}

/// A sum whose parts are finite but which is not: value + residual.
TEST(Overflow, OfValuePlusResidualIsFlagged) {
  const double most = std::numeric_limits<float>::max();
  for (const char* spec : {"onebit:block=8", "cast:bf16", "topk", "topk:block=2", "randomk",
                           "hadamard:block=16+onebit:block=8"}) {
    const auto codec = make_codec(spec);
    const Tensor values(std::vector<double>{1, most, 1}, DType::f32);
    Tensor residual(std::vector<double>{0.5, most, 0.25}, DType::f32);
    expect_flagged(*codec, encode(*codec, values.view(), residual.view(), DType::f32), 3, DType::f32);
    EXPECT_EQ(residual.doubles(), (std::vector<double>{0.5, most, 0.25})) << spec;
  }
}

}  // namespace
}  // namespace terse::test
