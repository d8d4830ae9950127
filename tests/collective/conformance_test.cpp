// SPDX-License-Identifier: Apache-2.0
//
// Every row of the tables with every other: codecs x algorithms x dtypes x ranks x counts x op x feedback x
// in place. check_call says what is expected of each call: the serial model in float64 (or == where sums are
// exact), the identities of error feedback, the same bits on all ranks, the bytes on the wire. A new row is
// tested at once.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "codec/summable.hpp"
#include "support/checks.hpp"
#include "support/codec_reference.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

#if defined(__OPTIMIZE__)
constexpr bool kOptimized = true;
#else
constexpr bool kOptimized = false;
#endif
// Every so many cases, the more so where each takes long: those of a table with as many codecs as it has. No
// multiple of 2, 3 or 7: what takes turns with these would stand still.
constexpr std::uint64_t kThin = kSanitized ? 97 : kOptimized ? 13 : 23;

constexpr auto kUnlimited = std::numeric_limits<std::size_t>::max();

bool is_lossy(const Rig& rig) { return rig.algorithm().compresses && !rig.codec()->traits().lossless; }

std::vector<std::size_t> counts_of(const Codec& codec, int ranks) {
  const std::size_t block = codec.traits().block;
  const auto parties = static_cast<std::size_t>(ranks);
  std::set<std::size_t> counts = {0, 1, 2, 7, 8, 9, 1009};
  if (block <= 64) {
    counts.insert({block - 1, block, block + 1, parties * block, parties * block + 1, 8 * parties - 1});
  }
  return {counts.begin(), counts.end()};
}

/// Of a codec's examples, for algorithms that do not encode.
std::string first_example_of(const Codec& codec) {
  for (const CodecEntry& row : codecs()) {
    if (row.name == codec.name()) return row.examples.front();
  }
  return {};
}

TEST(Conformance, EveryRowWithEveryOther) {
  std::uint64_t turn = 0;
  std::uint64_t checked = 0;
  std::map<std::string, int> by_pair;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const Algorithm& algorithm : algorithm_table()) {
      if (!algorithm.compresses && spec != first_example_of(*codec)) continue;
      for (const DType dtype : kAllDTypes) {
        for (const bool feedback : {true, false}) {
          const Setting pair{
              .dtype = dtype, .codec = spec, .algorithm = std::string(algorithm.name), .feedback = feedback};
          if (!refusal(pair).empty()) continue;
          for (const int ranks : {1, 2, 3, 4, 5, 7, 8}) {
            const auto most = codec->summable() ? codec->summable()->most_parties() : kUnlimited;
            if (algorithm.codecs == Algorithm::For::summable && static_cast<std::size_t>(ranks) > most)
              continue;
            for (const std::size_t count : counts_of(*codec, ranks)) {
              for (const Op op : {Op::average, Op::sum}) {
                for (const bool in_place : {false, true}) {
                  if (++turn % kThin != 0) continue;
                  Setting setting = pair;
                  setting.ranks = ranks;
                  setting.count = count;
                  setting.op = op;
                  setting.in_place = in_place;
                  setting.segment_bytes = turn % 3 == 0 ? 1 : 1000 * (turn % 3);
                  setting.checksum = turn % 4 == 0;
                  setting.offset = turn % 3;
                  setting.style = style_of(turn / 3);
                  if (turn % 7 < 3 && dtype != DType::f64) setting.residual = ResidualType::bf16;
                  Rig rig(setting);
                  SCOPED_TRACE(text_of(setting));
                  for (std::uint64_t step = 1; step <= 2; ++step) {
                    const auto inputs =
                        is_lossy(rig) ? normal_inputs(rig, turn + step) : exact_inputs(setting, turn + step);
                    check_call(rig, inputs, {.seed = turn});
                    if (HasFatalFailure()) return;
                  }
                  ++checked;
                  ++by_pair[std::string(codec->name()) + " by " + std::string(algorithm.name)];
                }
              }
            }
          }
        }
      }
    }
  }
  EXPECT_GE(checked * kThin, 15000u);
  for (const auto& [pair, cases] : by_pair) RecordProperty(pair, cases);
}

/// What does not go together is refused by a sentence that names both; each codec has an algorithm that it is
/// given where nobody names one.
TEST(Conformance, PairsThatAreRefusedAreNamed) {
  int refused = 0;
  for (const std::string& spec : all_specs()) {
    const auto codec = make_codec(spec);
    for (const DType dtype : kAllDTypes) {
      const Setting fitting{.dtype = dtype,
                            .codec = spec,
                            .algorithm = std::string(algorithm_for(*codec, 2).name),
                            .feedback = false};
      EXPECT_EQ(refusal(fitting).empty(), codec->supports(dtype)) << spec << " " << name(dtype);
      for (const Algorithm& algorithm : algorithm_table()) {
        for (const bool feedback : {true, false}) {
          const Setting pair{
              .dtype = dtype, .codec = spec, .algorithm = std::string(algorithm.name), .feedback = feedback};
          const std::string sentence = refusal(pair);
          if (sentence.empty()) continue;
          ++refused;
          EXPECT_NE(sentence.find(codec->spec()), std::string::npos) << sentence;
          EXPECT_TRUE(sentence.find(algorithm.name) != std::string::npos ||
                      sentence.find(name(dtype)) != std::string::npos)
              << sentence;
        }
      }
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace terse::test
