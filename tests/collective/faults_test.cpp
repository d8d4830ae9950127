// SPDX-License-Identifier: Apache-2.0
//
// Messages that do not arrive as they were sent. With checksums every fault ends in the same named error on
// all ranks; without them, in that error on all ranks that can be told, or, where only the payload is hit, in
// numbers. Never in a hang: each rank's loop goes on, as a Communicator's does, by refusing every later call.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/codec_reference.hpp"
#include "support/covering.hpp"
#include "support/exact.hpp"
#include "support/faulty_transport.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

// Channels of a call: the two phases, ranks' error reports; then the same of what is resent uncompressed.
constexpr int kToOwner = 0;
constexpr int kToAll = 1;
constexpr int kAgain = kTagsOfAPass;

constexpr std::size_t kCalls = 3;

struct Calls {
  std::vector<Rig::Result> calls;
  bool altered = false;
  bool delayed = false;
};

std::string kind(const std::string& error) { return error.substr(0, error.find(':')); }

/// NaN in two pieces of the second call, where asked for.
std::vector<Rig::Matrix> inputs_of(const Setting& s, bool with_nan) {
  std::vector<Rig::Matrix> inputs;
  for (std::size_t c = 0; c < kCalls; ++c) inputs.push_back(exact_inputs(s, c + 1));
  if (with_nan) {
    inputs[1][0][s.count - 1] = std::nan("");
    inputs[1][static_cast<std::size_t>(s.ranks - 1)][s.count / 4] = HUGE_VAL;
  }
  return inputs;
}

/// A few calls in a row. A rank whose call has failed says so in all later ones.
Calls make_calls(const Setting& setting, const std::vector<Rig::Matrix>& inputs, const FaultPlan& plan) {
  Rig rig(setting);
  Calls run;
  for (std::size_t c = 0; c < inputs.size(); ++c) run.calls.push_back(rig.empty_result());
  const auto left =
      try_ranks(setting.ranks,
                [&](ThreadTransport& threads) {
                  FaultyTransport t(threads, plan);
                  const auto me = static_cast<std::size_t>(t.rank());
                  std::optional<Error> broken;
                  for (std::size_t c = 0; c < inputs.size(); ++c) {
                    rig.call_on(t, inputs[c], run.calls[c], [&](int, Call& call) { call.failure = broken; });
                    if (!broken && !run.calls[c].errors[me].empty())
                      broken.emplace(ErrorCode::communication, "broken");
                  }
                  if (t.rank() == plan.rank) {
                    run.altered = t.altered();
                    run.delayed = t.delayed();
                  }
                  if (broken) throw *broken;  // words that nobody had to hear may be left
                },
                {.seed = plan.seed});
  for (const auto& error : left) {
    const std::string text = sentence_of(error);
    EXPECT_TRUE(text.empty() || text == "communication: broken") << text;
  }
  return run;
}

/// To the bit as without the fault.
void expect_untouched(const Calls& run, const Calls& sound) {
  for (std::size_t c = 0; c < run.calls.size(); ++c) {
    for (std::size_t r = 0; r < run.calls[c].out.size(); ++r) {
      ASSERT_EQ(run.calls[c].errors[r], "") << "call " << c << ", rank " << r;
      ASSERT_TRUE(run.calls[c].out[r].same_bits(sound.calls[c].out[r])) << "call " << c << ", rank " << r;
    }
  }
}

enum class Told { all, who_can_be, perhaps };

/// One call ends in corrupt_data, on all ranks or on some; those before it are right, those after it refuse.
void expect_found(const Calls& run, const Calls& sound, const FaultPlan& plan, Told told) {
  bool found = false;
  for (std::size_t c = 0; c < run.calls.size(); ++c) {
    const auto& errors = run.calls[c].errors;
    if (found) {
      for (const std::string& error : errors)
        ASSERT_EQ(kind(error), "communication") << "after it: " << error;
      continue;
    }
    found = run.calls[c].failed();
    for (std::size_t r = 0; r < errors.size(); ++r) {
      if (found) {
        const bool must = told == Told::all || static_cast<int>(r) == plan.rank;
        ASSERT_TRUE(kind(errors[r]) == "corrupt_data" || (errors[r].empty() && !must))
            << "call " << c << ", rank " << r << ": " << errors[r];
      } else if (told != Told::perhaps) {
        ASSERT_TRUE(run.calls[c].out[r].same_bits(sound.calls[c].out[r])) << "call " << c << ", rank " << r;
      }
    }
  }
  ASSERT_TRUE(found || told == Told::perhaps) << "nobody has seen it";
}

/// Faults that the header, or what comes instead of it, gives away without a checksum.
bool shows(Fault fault) {
  return fault != Fault::flip && fault != Fault::overwrite && fault != Fault::replay && fault != Fault::delay;
}

bool has_nan(const Rig::Matrix& inputs) {
  return std::any_of(inputs.begin(), inputs.end(), [](const std::vector<double>& row) {
    return std::any_of(row.begin(), row.end(), [](double x) { return std::isnan(x); });
  });
}

struct Counts {
  int altered = 0;
  int delayed = 0;
};

void check_plan(const Setting& setting, const std::vector<Rig::Matrix>& inputs, const Calls& sound,
                const FaultPlan& plan, Counts& counts) {
  SCOPED_TRACE(text_of(setting) + "; " + text_of(plan));
  const Calls got = make_calls(setting, inputs, plan);
  counts.altered += got.altered;
  counts.delayed += got.delayed;
  if (!got.altered) return expect_untouched(got, sound);
  if (setting.checksum) return expect_found(got, sound, plan, Told::all);
  if (!shows(plan.fault)) return expect_found(got, sound, plan, Told::perhaps);
  // Who knows a sum to be flagged reads no more than headers. Where one value flags all of a tensor, or sizes
  // say nothing, what is wrong behind a header may never be looked at, nor needed.
  const CodecTraits traits = make_codec(setting.codec)->traits();
  const bool all_flagged =
      (traits.whole_tensor || !traits.fixed_size) && std::any_of(inputs.begin(), inputs.end(), has_nan);
  if (all_flagged && plan.fault != Fault::flip_header) return expect_found(got, sound, plan, Told::perhaps);
  // what an owner finds, or all meet after, is told to all
  const int channel = plan.channel % kAgain;
  expect_found(got, sound, plan, channel == kToAll ? Told::who_can_be : Told::all);
}

/// Every algorithm that compresses, every codec, every fault in both phases of both passes; what else there
/// is takes turns.
void check_all(bool checksum) {
  std::uint64_t turn = 0;
  std::uint64_t setting_number = 0;
  const std::uint64_t settings = nightly() ? 1 : 19;  // of so many, one takes a pair of fault and channel
  std::map<Fault, Counts> counts;
  for (const Algorithm& algorithm : algorithm_table()) {
    if (!algorithm.compresses) continue;
    for (const std::string& spec : all_specs()) {
      const auto codec = make_codec(spec);
      for (const int ranks : thinned({2, 3, 5})) {
        for (const bool with_nan : {false, true}) {
          ++turn;
          setting_number += with_nan ? 0 : 1;
          Setting s{.ranks = ranks, .count = 777, .codec = spec, .algorithm = std::string(algorithm.name)};
          for (std::uint64_t k = 0; k < 4; ++k) {
            const DType dtype = kAllDTypes[(turn + k) % 4];
            if (codec->supports(dtype)) {
              s.dtype = dtype;
              break;
            }
          }
          s.op = turn % 3 == 0 ? Op::sum : Op::average;
          s.feedback = codec->traits().contractive || codec->traits().whole_tensor;
          if (!refusal(s).empty()) continue;
          s.in_place = turn % 4 == 1;
          s.segment_bytes = codec->traits().block > 100 ? 1 : 1200;
          s.style = style_of(turn);
          s.checksum = checksum;
          const auto inputs = inputs_of(s, with_nan);
          const Calls sound = make_calls(s, inputs, {.rank = -1});
          if (testing::Test::HasFailure()) return;
          for (const Fault fault : kAllFaults) {
            for (int channel = 0; channel < kTagsOfPasses; ++channel) {
              if (channel >= kErrorReports && !with_nan) continue;
              if ((static_cast<std::uint64_t>(fault) + static_cast<std::uint64_t>(channel) + setting_number) %
                      settings !=
                  0) {
                continue;
              }
              FaultPlan plan{.fault = fault, .channel = channel, .seed = ++turn};
              plan.rank = static_cast<int>(turn / 2) % ranks;
              plan.nth = turn / 7 % 5;
              check_plan(s, inputs, sound, plan, counts[fault]);
              if (testing::Test::HasFailure()) return;
            }
          }
        }
      }
    }
  }
  for (const Fault fault : kAllFaults) {
    const int hits = fault == Fault::delay ? counts[fault].delayed : counts[fault].altered;
    // two messages change places only if the second comes soon enough: on a busy machine that may be few
    EXPECT_GT(hits, fault == Fault::swap ? 0 : 4) << name(fault) << " has hardly happened";
  }
}

TEST(Faults, WithChecksumsEndInOneErrorOnAllRanks) { check_all(true); }

TEST(Faults, WithoutChecksumsNeverHangAndAreToldToWhoCanBe) { check_all(false); }

/// Each bit of the header, wherever the message goes; a NaN makes some of them flagged ones.
TEST(Faults, EveryBitOfAHeader) {
  for (const bool with_nan : {false, true}) {
    for (const bool checksum : {false, true}) {
      Setting s{.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000};
      s.checksum = checksum;
      const auto inputs = inputs_of(s, with_nan);
      const Calls sound = make_calls(s, inputs, {.rank = -1});
      for (std::size_t bit = 0; bit < 128; bit += kSanitized ? 5 : 1) {
        for (const int channel : {kToOwner, kToAll}) {
          FaultPlan plan{.fault = Fault::flip_header, .channel = channel, .bit = bit, .seed = bit + 1};
          plan.rank = static_cast<int>(bit) % s.ranks;
          // the flagged messages of the second call are among the sixth to the tenth
          plan.nth = with_nan ? 4 + bit % 8 : bit % 3;
          Counts counts;
          check_plan(s, inputs, sound, plan, counts);
          if (HasFailure()) return;
          ASSERT_EQ(counts.altered, 1) << text_of(plan);
        }
      }
    }
  }
}

/// One piece is flagged, and one rank cannot read the message that says so: the others wait for it, and it
/// does not know. Whichever of its results is hit, all that meet hear of it.
TEST(Faults, AFlaggedResultThatOneRankCannotRead) {
  const Setting s{.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000};
  auto inputs = inputs_of(s, false);
  inputs[1][0][5] = std::nan("");
  const Calls sound = make_calls(s, inputs, {.rank = -1});
  int told = 0;
  for (const Fault fault : {Fault::truncate, Fault::flip_header, Fault::overwrite, Fault::repeat_header}) {
    for (std::size_t nth = 0; nth < 15; ++nth) {
      const FaultPlan plan{.fault = fault, .rank = 2, .channel = kToAll, .nth = nth, .seed = nth + 1};
      SCOPED_TRACE(text_of(plan));
      const Calls got = make_calls(s, inputs, plan);
      const bool shown = got.altered && fault != Fault::overwrite;
      expect_found(got, sound, plan, shown ? Told::who_can_be : Told::perhaps);
      if (HasFailure()) return;
      for (const Rig::Result& call : got.calls) told += kind(call.errors[0]) == "corrupt_data";
    }
  }
  EXPECT_GE(told, 3) << "no plan has hit the flagged one";
}

/// All messages to the one rank whose word others wait for, flagged ones too: it can know nothing of the
/// others.
TEST(Faults, OfEveryMessageOfAPhaseToOneRank) {
  for (const bool checksum : {false, true}) {
    for (const bool with_nan : {false, true}) {
      for (const int channel : {kToOwner, kToAll, kAgain + kToOwner, kAgain + kToAll}) {
        for (const Fault fault : {Fault::truncate, Fault::flip_header, Fault::overwrite, Fault::replay}) {
          Setting s{.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000};
          s.checksum = checksum;
          const auto inputs = inputs_of(s, with_nan);
          Counts counts;
          check_plan(s, inputs, make_calls(s, inputs, {.rank = -1}),
                     {.fault = fault, .rank = 1, .channel = channel, .times = 1000, .seed = 5}, counts);
          if (HasFailure()) return;
        }
      }
    }
  }
}

/// Without checksums a flipped sign may pass in phase one, but then it does so on all ranks alike.
TEST(Faults, OfAPayloadInPhaseOneGiveTheSameBitsOrAnError) {
  for (std::size_t bit = 16 * 8; bit < 30 * 8; bit += kSanitized ? 5 : 1) {
    const Setting s{.ranks = 3, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 2000};
    const FaultPlan plan{.fault = Fault::flip, .rank = 2, .channel = kToOwner, .bit = bit, .seed = bit};
    SCOPED_TRACE(text_of(plan));
    const Calls got = make_calls(s, inputs_of(s, false), plan);
    ASSERT_TRUE(got.altered);
    for (const Rig::Result& call : got.calls) {
      for (std::size_t r = 1; r < 3; ++r) {
        ASSERT_EQ(kind(call.errors[r]), kind(call.errors[0]));
        ASSERT_TRUE(call.failed() || call.out[r].same_bits(call.out[0]));
      }
    }
  }
}

/// What swapped messages need a checksum for, and what they do not: their header says where they belong.
TEST(Faults, MessagesInTheWrongPlaceAreFound) {
  Counts counts;
  for (const bool checksum : {false, true}) {
    for (const Fault fault : {Fault::swap, Fault::replay}) {
      for (const int channel : {kToOwner, kToAll}) {
        for (std::uint64_t seed = 1; seed <= 10; ++seed) {
          Setting s{.ranks = 2, .count = 1024, .codec = "identity", .segment_bytes = 1024};
          s.checksum = checksum;
          const auto inputs = inputs_of(s, false);
          check_plan(s, inputs, make_calls(s, inputs, {.rank = -1}),
                     {.fault = fault, .rank = 1, .channel = channel, .nth = seed, .seed = seed}, counts);
          if (HasFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(counts.altered, 20);
}

}  // namespace
}  // namespace terse::test
