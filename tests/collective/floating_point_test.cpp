// SPDX-License-Identifier: Apache-2.0
//
// Bits depend on values alone: every codec by every algorithm that compresses, with a floating-point mode of
// its own on each rank. Results and residuals are those of ranks in the default mode, and each rank finds its
// mode and its flags as they were.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cfenv>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codec/rounds.hpp"
#include "support/caller_mode.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"

namespace terse::test {
namespace {

constexpr int kRanks = 3;
constexpr std::uint64_t kSteps = 3;

std::vector<std::byte> bytes_of(ConstView values) {
  const auto* p = static_cast<const std::byte*>(values.data);
  return {p, p + values.bytes()};
}

/// What a few calls gave: all results, and the residuals that are left, of all ranks.
struct Trace {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<std::string> errors;
};

// Each rank is a thread, and so has a floating-point mode of its own.
Trace trace_of(const Setting& setting, double size, std::size_t shift, bool modes) {
  Rig rig(setting);
  std::atomic<int> changed{0};
  rig.place = [&](int rank, Call&) -> std::function<void()> {
    if (!modes) return [] {};
    const CallerMode mode =
        kAllCallerModes[(static_cast<std::size_t>(rank) + shift) % std::size(kAllCallerModes)];
    auto scope = std::make_shared<CallerModeScope>(mode, FE_DIVBYZERO);
    return [scope, &changed] {
      if (!scope->unchanged()) ++changed;
    };
  };
  Trace trace;
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    rig.set_call(step - 1);
    Rig::Matrix inputs;
    for (int r = 0; r < setting.ranks; ++r) {
      inputs.push_back(normal_values(setting.count, setting.dtype, step, r, size));
    }
    const Rig::Result result = rig.call(inputs);
    for (const std::string& error : result.errors) {
      if (!error.empty()) trace.errors.push_back(error);
    }
    for (const Tensor& out : result.out) {
      trace.bytes.emplace_back(out.bytes().begin(), out.bytes().end());
    }
  }
  for (int r = 0; r < setting.ranks && setting.feedback; ++r) {
    trace.bytes.push_back(bytes_of(rig.feedback(r).worker()));
    trace.bytes.push_back(bytes_of(rig.feedback(r).server()));
  }
  EXPECT_EQ(changed, 0) << "a rank's mode or flags are not as before";
  return trace;
}

double subnormal_size(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return 1e-309;
    case DType::f16:
      return 2e-6;
    default:
      return 2e-39;
  }
}

TEST(FloatingPoint, ModesOfTheRanksChangeNothing) {
  std::size_t turn = 0;
  int cases = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const Algorithm& algorithm : algorithm_table()) {
      if (!algorithm.compresses) continue;
      if (algorithm.codecs == Algorithm::For::summable && rounds_of(*codec) != nullptr &&
          rounds_of(*codec)->most_ranks() < kRanks) {
        continue;
      }
      for (const DType dtype : kAllDTypes) {
        // tensors of subnormals, of sizes whose scales or products are subnormal, and of usual ones
        for (const double size : {subnormal_size(dtype), 0.01, 1.0}) {
          ++turn;
          if (kSanitized && turn % 7 != 0) continue;
          Setting setting{.ranks = kRanks,
                          .count = 2009,
                          .dtype = dtype,
                          .op = turn % 2 == 0 ? Op::sum : Op::average,
                          .codec = spec,
                          .algorithm = std::string(algorithm.name),
                          .segment_bytes = 4096,
                          .style = turn % 11 == 0  ? Style::progress_thread
                                   : turn % 5 == 0 ? Style::threads
                                                   : Style::blocking};
          if (!refusal(setting).empty()) {
            setting.feedback = false;
            if (!refusal(setting).empty()) continue;
          }
          if (setting.feedback && turn % 4 == 0 && dtype != DType::f64) setting.residual = ResidualType::bf16;
          SCOPED_TRACE(text_of(setting) + ", size " + std::to_string(size));
          const Trace want = trace_of(setting, size, 0, false);
          const Trace got = trace_of(setting, size, turn, true);
          ASSERT_EQ(want.errors, std::vector<std::string>());
          ASSERT_EQ(got.errors, std::vector<std::string>());
          ASSERT_EQ(got.bytes.size(), want.bytes.size());
          for (std::size_t i = 0; i < want.bytes.size(); ++i) {
            ASSERT_TRUE(got.bytes[i] == want.bytes[i]) << "of the " << i << "th buffer";
          }
          ++cases;
        }
      }
    }
  }
  EXPECT_GE(cases, kSanitized ? 40 : 300);
}

// A codec's own calls, and what is made of a spec.
TEST(FloatingPoint, ModesOfTheCallerChangeNoCodec) {
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    if (!codec->supports(DType::f32)) continue;
    for (const double size : {2e-39, 0.01}) {
      const Tensor values(normal_values(1009, DType::f32, 1, 0, size), DType::f32);
      const auto encode_and_decode = [&](const Codec& by) {
        std::vector<std::byte> message(by.max_bytes(values.count(), DType::f32));
        Tensor residual(values.count(), DType::f32);
        Tensor out(values.count(), DType::f32);
        const View e = by.traits().lossless ? View{} : residual.view();
        message.resize(by.encode(values.view(), e, message, DType::f32));
        if (!is_flagged(message)) by.decode(message, out.view(), Into::add, 0.3);
        by.undo(message, values.view(), e);
        for (const Tensor* tensor : {&residual, &out}) {
          message.insert(message.end(), tensor->bytes().begin(), tensor->bytes().end());
        }
        return message;
      };
      const auto want = encode_and_decode(*codec);
      for (const CallerMode mode : kAllCallerModes) {
        std::vector<std::byte> got;
        std::string made_spec;
        bool unchanged = false;
        {
          const CallerModeScope caller(mode, FE_OVERFLOW);
          const auto made = make_codec(spec);
          made_spec = made->spec();
          got = encode_and_decode(*made);
          unchanged = caller.unchanged();
        }
        EXPECT_TRUE(got == want) << spec << ", mode " << static_cast<int>(mode);
        EXPECT_EQ(made_spec, codec->spec());
        EXPECT_TRUE(unchanged) << spec << ", mode " << static_cast<int>(mode);
      }
    }
  }
}

// Residuals of four ranks for two: sums and quotients.
TEST(FloatingPoint, ModesOfTheCallerChangeNoReshardedResidual) {
  Rig four({.ranks = 4, .count = 1009, .codec = "onebit:block=64"});
  for (std::uint64_t step = 1; step <= 2; ++step) four.call(normal_inputs(four, step));
  std::vector<std::vector<std::byte>> saves;
  for (int r = 0; r < 4; ++r) saves.push_back(four.feedback(r).save());
  Rig::Matrix inputs;
  for (int r = 0; r < 2; ++r) inputs.push_back(normal_values(1009, DType::f32, 9, r));
  const auto go_on = [&](CallerMode mode) {
    Rig two({.ranks = 2, .count = 1009, .codec = "onebit:block=64"});
    bool unchanged = false;
    {
      const CallerModeScope caller(mode, FE_INVALID);
      for (int r = 0; r < 2; ++r) two.feedback(r).load(saves);
      unchanged = caller.unchanged();
    }
    EXPECT_TRUE(unchanged) << static_cast<int>(mode);
    EXPECT_FALSE(two.call(inputs).failed());
    return std::vector{two.feedback(0).save(), two.feedback(1).save()};
  };
  const auto want = go_on(CallerMode::plain);
  for (const CallerMode mode : kAllCallerModes) {
    EXPECT_TRUE(go_on(mode) == want) << static_cast<int>(mode);
  }
}

}  // namespace
}  // namespace terse::test
