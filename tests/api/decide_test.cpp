// SPDX-License-Identifier: Apache-2.0
//
// What a call does, as a table: a row is facts, and the decision that they lead to.
#include "api/decide.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/tuning.hpp"

namespace terse::test {
namespace {

const Codec* codec(const char* spec) {
  static auto& made = *new std::map<std::string, std::shared_ptr<const Codec>>;
  auto& one = made[spec];
  if (!one) one = make_codec(spec);
  return one.get();
}

const Error kGiven(ErrorCode::invalid_argument, "the caller's");
const Error kBuffers(ErrorCode::invalid_argument, "a null pointer");
const Error kBroken(ErrorCode::communication, "not usable any more");

/// A tensor of 1 MiB of f32 on four ranks with onebit, all options at their defaults.
Facts facts_with(const std::function<void(Facts&)>& change = {}) {
  Facts facts{.codec = codec("onebit"), .count = std::size_t{1} << 18, .ranks = 4};
  if (change) change(facts);
  return facts;
}

/// "compressed by two_phase", "exact by exact, small: no agreement", ..., or the failure.
std::string text_of(const Decision& d) {
  std::string text = std::string(name(d.result)) + " by " + std::string(d.algorithm->name);
  if (d.reason != Outcome::Reason::none) text += ", " + std::string(name(d.reason));
  if (!d.found.empty()) text += ", " + std::string(d.found);
  if (d.asks_for_trial) text += ", asks";
  if (d.declines) text += ", declines";
  if (!d.agree) text += ", no agreement";
  if (d.checksum) text += ", checksums";
  if (d.direct) text += ", direct";
  if (d.segment_bytes) text += ", segments of " + std::to_string(*d.segment_bytes);
  if (d.refuses_afterwards) text += ", refuses afterwards";
  if (d.failure) text += "; " + std::string(name(d.failure->code())) + ": " + d.failure->what();
  return text;
}

struct Row {
  const char* what;
  std::function<void(Facts&)> change;
  std::string decision;
};

void expect_rows(const std::vector<Row>& rows) {
  for (const Row& row : rows) EXPECT_EQ(text_of(decide(facts_with(row.change))), row.decision) << row.what;
}

TEST(Decide, WhatAutoDoes) {
  expect_rows({
      {"nothing is known", [](Facts&) {}, "compressed by two_phase, has a trial to make, asks"},
      {"a trial was won", [](Facts& f) { f.pays = true; },
       "compressed by two_phase, compresses after a trial"},
      {"a trial was lost", [](Facts& f) { f.pays = false; },
       "exact by exact, slower, takes plain MPI after a trial, declines"},
      {"compressed before", [](Facts& f) { f.past = Past::compressed; },
       "compressed by two_phase, compresses as before"},
      {"declined before", [](Facts& f) { f.past = Past::declined; },
       "exact by exact, slower, takes plain MPI as before, declines"},
      {"what was done before counts for more than trials",
       [](Facts& f) {
         f.past = Past::compressed;
         f.pays = false;
       },
       "compressed by two_phase, compresses as before"},
      {"one rank", [](Facts& f) { f.ranks = 1; }, "exact by exact, slower, declines"},
      {"one rank, whatever min_bytes is",
       [](Facts& f) {
         f.ranks = 1;
         f.min_bytes = 0;
       },
       "exact by exact, slower, declines"},
      {"one rank that has residuals of earlier calls",
       [](Facts& f) {
         f.ranks = 1;
         f.past = Past::compressed;
       },
       "compressed by two_phase, compresses as before"},
      {"a lossless codec is MPI's affair", [](Facts& f) { f.codec = codec("identity"); },
       "exact by exact, asked"},
      {"min_bytes named: no trial", [](Facts& f) { f.min_bytes = 4096; }, "compressed by two_phase"},
      {"min_bytes named: not even with a Feedback that was declined",
       [](Facts& f) {
         f.min_bytes = 4096;
         f.past = Past::declined;
       },
       "compressed by two_phase"},
  });
}

TEST(Decide, WhatIsSmall) {
  expect_rows({
      {"just below what auto looks at", [](Facts& f) { f.count = kAlwaysExact / 4 - 1; },
       "exact by exact, small, no agreement"},
      {"just as much", [](Facts& f) { f.count = kAlwaysExact / 4; },
       "compressed by two_phase, has a trial to make, asks"},
      {"bytes count, not elements",
       [](Facts& f) {
         f.count = kAlwaysExact / 8;
         f.dtype = DType::f64;
       },
       "compressed by two_phase, has a trial to make, asks"},
      {"below min_bytes",
       [](Facts& f) {
         f.min_bytes = 4001;
         f.count = 1000;
       },
       "exact by exact, small, no agreement"},
      {"as much as min_bytes",
       [](Facts& f) {
         f.min_bytes = 4000;
         f.count = 1000;
       },
       "compressed by two_phase"},
      {"no elements", [](Facts& f) { f.count = 0; }, "exact by exact, small, no agreement"},
      {"an algorithm by name compresses whatever the size",
       [](Facts& f) {
         f.algorithm = "gather";
         f.count = 1;
       },
       "compressed by gather"},
      {"but not below min_bytes by name",
       [](Facts& f) {
         f.algorithm = "gather";
         f.min_bytes = 5;
         f.count = 1;
       },
       "exact by exact, small, no agreement"},
      {"all calls are checked",
       [](Facts& f) {
         f.count = 1;
         f.check = Check::all;
       },
       "exact by exact, small"},
      {"payloads are checked",
       [](Facts& f) {
         f.count = 1;
         f.check = Check::payload;
       },
       "exact by exact, small, checksums"},
  });
}

TEST(Decide, WhatIsAskedForByName) {
  expect_rows({
      {"exact", [](Facts& f) { f.algorithm = "exact"; }, "exact by exact, asked"},
      {"exact, and small",
       [](Facts& f) {
         f.algorithm = "exact";
         f.count = 1;
       },
       "exact by exact, asked, no agreement"},
      {"two_phase", [](Facts& f) { f.algorithm = "two_phase"; }, "compressed by two_phase"},
      {"two_phase on one rank",
       [](Facts& f) {
         f.algorithm = "two_phase";
         f.ranks = 1;
       },
       "compressed by two_phase"},
      {"two_phase with a Feedback that declined",
       [](Facts& f) {
         f.algorithm = "two_phase";
         f.past = Past::declined;
       },
       "compressed by two_phase"},
      {"a lossless codec by an algorithm that encodes",
       [](Facts& f) {
         f.algorithm = "two_phase";
         f.codec = codec("identity");
       },
       "exact by two_phase, asked"},
      {"segments", [](Facts& f) { f.segment_bytes = 4096; },
       "compressed by two_phase, has a trial to make, asks, segments of 4096"},
  });
}

TEST(Decide, WhichAlgorithmGoesWithTheCodec) {
  const auto with = [](const char* spec, int ranks) {
    return [=](Facts& f) {
      f.codec = codec(spec);
      f.ranks = ranks;
      f.min_bytes = 0;
    };
  };
  expect_rows({
      {"blocks", with("quant:bits=4", 3), "compressed by two_phase"},
      {"sparse", with("topk:ratio=0.01", 3), "compressed by gather"},
      {"whole and taken apart", with("onebit:deepspeed", 3), "compressed by deepspeed"},
      {"sums have room", with("sum8", 127), "compressed by summed"},
      {"sums have none", with("sum8", 128), "compressed by two_phase"},
      {"less room", with("sum4", 7), "compressed by summed"},
      {"and none", with("sum4", 8), "compressed by two_phase"},
  });
}

TEST(Decide, WhereTensorsAre) {
  const auto device = [](const std::function<void(Facts&)>& more = {}) {
    return [=](Facts& f) {
      f.on_device = true;
      f.min_bytes = 0;
      if (more) more(f);
    };
  };
  const bool has_kernels = codec("onebit")->supports(Memory::cuda);
  const std::string advice = " has no code for device memory: " +
                             std::string(has_kernels ? "use identity, cast, onebit or quant, or " : "") +
                             "copy the tensor to host memory";
  const std::string no_kernels = "; unsupported: codec onebit:block=2048,scale=l1" + advice;
  expect_rows({
      {"by kernels", device(),
       has_kernels ? "compressed by two_phase" : "compressed by two_phase" + no_kernels},
      {"exactly, a codec needs none", device([](Facts& f) { f.algorithm = "exact"; }),
       "exact by exact, asked"},
      {"a codec without", device([](Facts& f) { f.codec = codec("zfp:rate=8"); }),
       "compressed by two_phase; unsupported: codec " + codec("zfp:rate=8")->spec() + advice},
      {"an algorithm without", device([](Facts& f) { f.algorithm = "gather"; }),
       has_kernels ? "compressed by gather; unsupported: algorithm gather has no code for device memory: use "
                     "two_phase, "
                     "or copy the tensor to host memory"
                   : "compressed by gather" + no_kernels},
      {"MPI says that it takes device memory",
       [](Facts& f) {
         f.min_bytes = 0;
         f.takes_device_memory = true;
       },
       "compressed by two_phase, direct"},
      {"and is not believed",
       [](Facts& f) {
         f.min_bytes = 0;
         f.takes_device_memory = true;
         f.cuda_aware = CudaAware::off;
       },
       "compressed by two_phase"},
      {"MPI does not say so, and takes it",
       [](Facts& f) {
         f.min_bytes = 0;
         f.cuda_aware = CudaAware::on;
       },
       "compressed by two_phase, direct"},
      {"checksums are computed by the host",
       [](Facts& f) {
         f.min_bytes = 0;
         f.cuda_aware = CudaAware::on;
         f.check = Check::payload;
       },
       "compressed by two_phase, checksums"},
  });
}

TEST(Decide, WhatIsRefused) {
  const auto named = [](const char* algorithm, const char* spec,
                        const std::function<void(Facts&)>& more = {}) {
    return [=](Facts& f) {
      f.algorithm = algorithm;
      f.codec = codec(spec);
      if (more) more(f);
    };
  };
  expect_rows({
      {"no such algorithm", [](Facts& f) { f.algorithm = "ring"; },
       "compressed by two_phase; invalid_argument: unknown algorithm 'ring': use auto, or one of exact, "
       "two_phase, "
       "gather, summed, deepspeed"},
      {"segments of nothing", [](Facts& f) { f.segment_bytes = 0; },
       "compressed by two_phase, segments of 0; invalid_argument: segment_bytes is 0: use auto, or at least "
       "1, such as "
       "4M"},
      {"a codec for whole tensors", named("two_phase", "onebit:deepspeed"),
       "compressed by two_phase; unsupported: algorithm two_phase does not go with codec onebit:deepspeed: "
       "the codec "
       "encodes a tensor only as a whole. Use algorithm deepspeed, or auto"},
      {"a codec whose messages do not add", named("summed", "onebit"),
       "compressed by summed; unsupported: algorithm summed does not go with codec "
       "onebit:block=2048,scale=l1: its "
       "messages do not add up without being decoded. Use algorithm two_phase, or auto"},
      {"sums have no room", named("summed", "sum4", [](Facts& f) { f.ranks = 8; }),
       "compressed by summed; unsupported: algorithm summed cannot add what 8 ranks encode with codec " +
           codec("sum4")->spec() +
           ": its codes have room for 7. Use algorithm two_phase, or auto, or a codec with more bits"},
      {"a list with one scale for all",
       named("deepspeed", "onebit:deepspeed", [](Facts& f) { f.list = true; }),
       "compressed by deepspeed; unsupported: algorithm deepspeed takes one tensor a call: its codec has one "
       "scale for "
       "all of it. Call it for each tensor"},
      {"a type that the codec has not",
       named("two_phase", "cast:f16", [](Facts& f) { f.dtype = DType::f64; }),
       "compressed by two_phase; unsupported: codec cast:f16 cannot encode f64: choose another codec for "
       "this tensor "
       "(see `terse codecs`)"},
      {"residuals that may grow", named("two_phase", "onebit:scale=rms", [](Facts& f) { f.feedback = true; }),
       "compressed by two_phase; unsupported: algorithm two_phase cannot keep residuals for codec " +
           codec("onebit:scale=rms")->spec() +
           ": the codec is not a contraction, so that they may grow without bound. Call it without feedback "
           "or choose "
           "a codec that is (see `terse codecs`)"},
      {"the same without feedback", named("two_phase", "onebit:scale=rms"), "compressed by two_phase"},
      {"residuals of a type that does not serve",
       named("two_phase", "onebit",
             [](Facts& f) {
               f.feedback = f.bf16_residuals = true;
               f.dtype = DType::f64;
             }),
       "compressed by two_phase; unsupported: a Feedback with residuals in bf16 does not serve a tensor of "
       "f64: make "
       "one of type full"},
      {"of which a lossless codec keeps none",
       named("two_phase", "identity",
             [](Facts& f) {
               f.feedback = f.bf16_residuals = true;
               f.dtype = DType::f64;
             }),
       "exact by two_phase, asked"},
      {"an unsound pair is refused for small tensors too, and without a trial",
       [](Facts& f) {
         f.codec = codec("onebit:scale=rms");
         f.feedback = true;
         f.count = 1;
       },
       "exact by exact, small, no agreement; unsupported: algorithm two_phase cannot keep residuals for "
       "codec " +
           codec("onebit:scale=rms")->spec() +
           ": the codec is not a contraction, so that they may grow without bound. Call it without feedback "
           "or choose "
           "a codec that is (see `terse codecs`)"},
      {"exact keeps no residuals", named("exact", "onebit:scale=rms", [](Facts& f) { f.feedback = true; }),
       "exact by exact, asked"},
  });
}

TEST(Decide, WhatElseIsWrong) {
  expect_rows({
      {"the caller has found something: no trial", [](Facts& f) { f.option_failure = &kGiven; },
       "compressed by two_phase; invalid_argument: the caller's"},
      {"no codec could be made",
       [](Facts& f) {
         f.option_failure = &kGiven;
         f.codec = nullptr;
       },
       "compressed by two_phase; invalid_argument: the caller's"},
      {"buffers", [](Facts& f) { f.buffer_failure = &kBuffers; },
       "compressed by two_phase; invalid_argument: a null pointer"},
      {"the options are looked at before the buffers",
       [](Facts& f) {
         f.buffer_failure = &kBuffers;
         f.algorithm = "ring";
       },
       "compressed by two_phase; invalid_argument: unknown algorithm 'ring': use auto, or one of exact, "
       "two_phase, "
       "gather, summed, deepspeed"},
      {"the buffers before the pair",
       [](Facts& f) {
         f.buffer_failure = &kBuffers;
         f.codec = codec("onebit:scale=rms");
         f.feedback = true;
       },
       "compressed by two_phase; invalid_argument: a null pointer"},
      {"broken, with an agreement: told there", [](Facts& f) { f.broken = &kBroken; },
       "compressed by two_phase; communication: not usable any more"},
      {"broken, and more",
       [](Facts& f) {
         f.broken = &kBroken;
         f.option_failure = &kGiven;
       },
       "compressed by two_phase; communication: not usable any more"},
      {"broken, without: told afterwards",
       [](Facts& f) {
         f.broken = &kBroken;
         f.count = 1;
       },
       "exact by exact, small, no agreement, refuses afterwards"},
  });
}

/// What ranks may differ in, such as where their tensors are, changes no choice that they must share.
TEST(Decide, RanksThatDifferChooseAlike) {
  const std::vector<std::function<void(Facts&)>> differences = {
      [](Facts& f) { f.takes_device_memory = true; },
      [](Facts& f) { f.cuda_aware = CudaAware::on; },
      [](Facts& f) { f.on_device = codec("identity")->supports(Memory::cuda); },
  };
  for (const char* algorithm : {"auto", "exact", "two_phase"}) {
    for (const std::size_t min_bytes : {std::size_t{0}, std::size_t{1} << 30, kAutoBytes}) {
      for (const Past past : {Past::unknown, Past::declined, Past::compressed}) {
        const Facts facts = facts_with([&](Facts& f) {
          f.algorithm = algorithm;
          f.min_bytes = min_bytes;
          f.past = past;
        });
        const Decision one = decide(facts);
        for (const auto& change : differences) {
          Facts other = facts;
          change(other);
          Decision two = decide(other);
          two.direct = one.direct;
          EXPECT_EQ(text_of(one), text_of(two));
        }
      }
    }
  }
}

TEST(Past, IsWhatTheFeedbackHolds) {
  const auto past = [](const FeedbackState& state) {
    return past_of(state, 100, DType::f32, *codec("onebit"), 4);
  };
  FeedbackState state;
  EXPECT_EQ(past(state), Past::unknown) << "fresh";
  state.shape.count = 100;
  state.shape.codec = codec("onebit")->spec();
  state.shape.ranks = 4;
  EXPECT_EQ(past(state), Past::unknown);
  state.declined = true;
  EXPECT_EQ(past(state), Past::declined);
  for (const auto& change : std::vector<std::function<void(FeedbackShape&)>>{
           [](FeedbackShape& s) { s.ranks = 5; }, [](FeedbackShape& s) { s.count = 99; },
           [](FeedbackShape& s) { s.dtype = DType::f64; },
           [](FeedbackShape& s) { s.codec = "onebit:block=64"; }}) {
    FeedbackState other;
    other.declined = true;
    other.shape = state.shape;
    change(other.shape);
    EXPECT_EQ(past(other), Past::unknown) << "declined something else";
  }
  state.calls = 1;
  EXPECT_EQ(past(state), Past::compressed);
  EXPECT_EQ(past_of(state, 100, DType::f32, *codec("onebit"), 5), Past::compressed)
      << "loaded on other ranks";
}

TEST(Past, OfSeveralTensorsIsThatOfOneThatWasCompressed) {
  EXPECT_EQ(past_of_both(Past::unknown, Past::declined), Past::declined);
  EXPECT_EQ(past_of_both(Past::declined, Past::compressed), Past::compressed);
  EXPECT_EQ(past_of_both(Past::compressed, Past::unknown), Past::compressed);
  EXPECT_EQ(past_of_both(Past::unknown, Past::unknown), Past::unknown);
}

std::string terms_of(const Facts& facts, std::string_view tensor = {}) {
  CallTerms terms;
  std::string text;
  for (const Term& term : terms.compose("iallreduce", facts, decide(facts), tensor)) {
    text += std::string(term.name) + "=" + std::string(term.value) + "\n";
  }
  return text;
}

/// Ranks agree on what was asked for and what was found, which with the codec is all that choices depend on.
TEST(Terms, SayWhatLedToTheDecision) {
  EXPECT_EQ(terms_of(facts_with()),
            "call=iallreduce\nalgorithm=auto\nmin_bytes=auto\nauto=has a trial to make\n");
  EXPECT_EQ(terms_of(facts_with([](Facts& f) { f.min_bytes = kAutoBytes - 1; }), "weights"),
            "call=iallreduce\nalgorithm=auto\nmin_bytes=18446744073709551614\ntensor=weights\n");
  EXPECT_EQ(terms_of(facts_with([](Facts& f) { f.algorithm = "exact"; })),
            "call=iallreduce\nalgorithm=exact\nmin_bytes=auto\n");
  EXPECT_EQ(terms_of(facts_with([](Facts& f) { f.pays = true; }), "w"),
            "call=iallreduce\nalgorithm=auto\nmin_bytes=auto\nauto=compresses after a trial\ntensor=w\n");
}

}  // namespace
}  // namespace terse::test
