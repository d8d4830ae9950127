// SPDX-License-Identifier: Apache-2.0
//
// Loops are compiled for several CPUs and chosen at run time: the best one is, and the bits do not depend on
// it.
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <terse/codec.hpp>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/tensor.hpp"

namespace terse::test {
namespace {

/// Restricts the library to one target while it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().DeInit();
  }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
  ~OnlyTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
};

/// All that one codec does with some values: messages, residuals, decoded and added values, as bytes.
std::vector<std::byte> run(const Codec& codec, DType as, DType from, ResidualType type, std::size_t count,
                           std::size_t offset, bool special) {
  const DType accumulator = accumulator_of(as);
  std::vector<std::byte> all;
  const auto note = [&](std::span<const std::byte> bytes) {
    all.insert(all.end(), bytes.begin(), bytes.end());
  };
  std::vector<double> input = normal_values(count, from, 1, 0);
  if (special) {
    const double most = from == DType::f16 ? 65504.0 : static_cast<double>(std::numeric_limits<float>::max());
    const double list[] = {0.0,       -0.0, 0x1p-149, -0x1p-140, 0x1p-24, 0x1p-25,
                           0x1.8p-24, most, -most,    65519.9,   1e-7,    3e-5};
    for (std::size_t i = 0; i < count; ++i) {
      if (i % 3 == 0) input[i] = round_to(list[i / 3 % std::size(list)], from);
    }
  }
  const Tensor values(input, from, offset);
  const DType kept = residual_of(as, type);
  Tensor residual(normal_values(count, kept, 2, 0, 0.3), kept, offset);
  for (const bool feedback : {false, true}) {
    std::vector<std::byte> message(codec.max_bytes(count, as));
    const double factor = special ? 3.0 : 1.0;
    message.resize(codec.encode(values.view(), feedback ? residual.view() : View{}, message, as, factor));
    note(message);
    note(residual.bytes());
    if (is_flagged(message)) continue;
    for (const DType dtype : {as, accumulator}) {
      Tensor out(normal_values(count, dtype, 3, 0), dtype, offset);
      codec.decode(message, out.view(), Into::overwrite, 1.0 / 3);
      note(out.bytes());
      codec.decode(message, out.view(), Into::stream, 3.0);
      note(out.bytes());
      codec.decode(message, out.view(), Into::add, 1.0);
      note(out.bytes());
    }
    if (feedback) codec.undo(message, values.view(), residual.view());
    note(residual.bytes());
  }
  return all;
}

TEST(Simd, EveryTargetGivesTheSameBits) {
  const auto targets = hwy::SupportedAndGeneratedTargets();
  int compared = 0;
  std::vector<std::string> specs = all_specs();
  specs.emplace_back("hadamard+onebit");  // steps that shorter blocks do not have
  for (const std::string& spec : specs) {
    const auto codec = make_codec(spec);
    const std::size_t block = codec->traits().block;
    for (const DType as : kAllDTypes) {
      if (!codec->supports(as)) continue;
      for (const DType from : {as, accumulator_of(as)}) {
        for (const ResidualType type : {ResidualType::full, ResidualType::bf16}) {
          for (const std::size_t count : {std::size_t{1}, std::size_t{67}, block + 9, 2 * block + 64 + 5}) {
            for (const bool special : {false, true}) {
              const std::size_t offset = count % 4;
              const auto want = run(*codec, as, from, type, count, offset, special);
              for (const std::int64_t target : targets) {
                const OnlyTarget only(target);
                ASSERT_EQ(run(*codec, as, from, type, count, offset, special) == want, true)
                    << hwy::TargetName(target) << ": " << spec << " of " << count << " " << name(as)
                    << " from " << name(from) << ", residuals " << name(type)
                    << (special ? ", special values" : "");
                ++compared;
              }
            }
          }
        }
      }
    }
  }
  RecordProperty("compared", compared);
  EXPECT_GT(compared, 0);
}

/// Which loop ran is not to be seen from outside, but whether Highway was asked is, and what it would then
/// choose.
TEST(Simd, TheBestTargetIsChosenAtRunTime) {
  if constexpr ((HWY_TARGETS & (HWY_TARGETS - 1)) == 0) {
    GTEST_SKIP() << "skipped: this build has loops for one target alone, and nothing to choose from";
  }
  const auto codec = make_codec("onebit:block=64");
  const Tensor values(normal_values(100, DType::f32, 1, 0), DType::f32);
  std::vector<std::byte> message(codec->max_bytes(100, DType::f32));
  Tensor out(100, DType::f32);
  const auto encode = [&] { codec->encode(values.view(), {}, message); };
  const auto decode = [&] { codec->decode(message, out.view()); };
  const auto add = [&] { codec->decode(message, out.view(), Into::add); };
  encode();
  struct Row {
    const char* what;
    std::function<void()> call;
  };
  for (const Row& row : {Row{"encode", encode}, Row{"decode", decode}, Row{"decode and add", add}}) {
    hwy::GetChosenTarget().DeInit();
    ASSERT_FALSE(hwy::GetChosenTarget().IsInitialized());
    row.call();
    EXPECT_TRUE(hwy::GetChosenTarget().IsInitialized()) << row.what << " does not dispatch at run time";
  }
#if HWY_ARCH_X86
  const auto targets = hwy::SupportedAndGeneratedTargets();
  ASSERT_FALSE(targets.empty());
  hwy::ChosenTarget best;
  best.Update(targets.front());  // the lowest bit is the best
  EXPECT_EQ(hwy::GetChosenTarget().GetIndex(), best.GetIndex());
  if (__builtin_cpu_supports("avx512bw")) {
    EXPECT_LE(targets.front(), HWY_AVX3) << "a better CPU than the loops";
  } else if (__builtin_cpu_supports("avx2")) {
    EXPECT_LE(targets.front(), HWY_AVX2);
  }
#endif
}

}  // namespace
}  // namespace terse::test
