// SPDX-License-Identifier: Apache-2.0
//
// Residuals are data: they are saved, loaded, moved to other numbers of ranks, and never mixed up.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <terse/feedback.hpp>
#include <utility>
#include <vector>

#include "codec/feedback_state.hpp"
#include "core/hash.hpp"
#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

using Bytes = std::vector<std::byte>;

Rig::Matrix plain_inputs(const Setting& s, std::uint64_t seed) {
  Rig::Matrix inputs;
  for (int r = 0; r < s.ranks; ++r) inputs.push_back(normal_values(s.count, s.dtype, seed, r));
  return inputs;
}

std::vector<Bytes> saves_of(Rig& rig) {
  std::vector<Bytes> saves;
  for (int r = 0; r < rig.setting().ranks; ++r) saves.push_back(rig.feedback(r).save());
  return saves;
}

std::string code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return std::string(name(error.code()));
  }
  return "accepted";
}

TEST(Feedback, IsEmptyBeforeItsFirstUse) {
  Feedback feedback;
  EXPECT_EQ(feedback.calls(), 0u);
  EXPECT_TRUE(feedback.worker().empty());
  EXPECT_TRUE(feedback.server().empty());
  EXPECT_TRUE(feedback.save().empty());
  feedback.load(Bytes{});
  feedback.reset();
  EXPECT_EQ(feedback.calls(), 0u);
}

/// A dtype, and how residuals of its tensors may be kept.
struct Kind {
  DType dtype;
  ResidualType residual;
  std::string text() const { return std::string(name(dtype)) + ", residuals " + std::string(name(residual)); }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const DType dtype : kAllDTypes) {
    all.push_back({dtype, ResidualType::full});
    if (dtype != DType::f64) all.push_back({dtype, ResidualType::bf16});
  }
  return all;
}

TEST(Feedback, TellsItsShape) {
  for (const auto& [dtype, residual] : kinds()) {
    Rig rig({.ranks = 3, .count = 200, .dtype = dtype, .codec = "onebit:block=64", .residual = residual});
    const DType kept = residual == ResidualType::bf16 ? DType::bf16 : accumulator_of(dtype);
    rig.call(plain_inputs(rig.setting(), 1));
    rig.call(plain_inputs(rig.setting(), 2));
    const std::size_t chunks[] = {128, 64, 8};
    const std::size_t begins[] = {0, 128, 192};
    for (int r = 0; r < 3; ++r) {
      const Feedback& f = rig.feedback(r);
      EXPECT_EQ(f.calls(), 2u);
      EXPECT_EQ(f.worker().count, 200u);
      EXPECT_EQ(f.residual_type(), residual);
      EXPECT_EQ(f.worker().dtype, kept);
      EXPECT_EQ(f.server().count, chunks[r]);
      EXPECT_EQ(f.server().dtype, kept);
      EXPECT_EQ(f.server_begin(), begins[r]);
    }
  }
}

/// Saved in mid-run and loaded elsewhere: the rest of the run is bit-identical.
TEST(Feedback, SaveAndLoadGoOnToTheBit) {
  for (const auto& [dtype, residual] : kinds()) {
    for (const int ranks : thinned({1, 3, 4})) {
      const Setting s{
          .ranks = ranks, .count = 500, .dtype = dtype, .codec = "onebit:block=64", .residual = residual};
      Rig rig(s);
      for (std::uint64_t step = 0; step < 3; ++step) rig.call(plain_inputs(s, step));
      Setting others = s;  // the save brings its type along
      others.residual = ranks == 3 ? ResidualType::full : ResidualType::bf16;
      Rig resumed(others);
      const auto saves = saves_of(rig);
      for (int r = 0; r < ranks; ++r) {
        resumed.feedback(r).load(saves[static_cast<std::size_t>(r)]);
        EXPECT_EQ(resumed.feedback(r).calls(), 3u);
        EXPECT_EQ(resumed.feedback(r).residual_type(), residual);
      }
      EXPECT_EQ(saves_of(resumed), saves);
      for (std::uint64_t step = 3; step < 6; ++step) {
        const auto want = rig.call(plain_inputs(s, step));
        const auto got = resumed.call(plain_inputs(s, step));
        for (int r = 0; r < ranks; ++r) {
          const auto at = static_cast<std::size_t>(r);
          ASSERT_EQ(got.errors[at], "");
          ASSERT_TRUE(got.out[at].same_bits(want.out[at])) << text_of(s) << " step " << step;
        }
      }
      EXPECT_EQ(saves_of(resumed), saves_of(rig));
    }
  }
}

/// On other numbers of ranks: mean e + s is the same before and after, element by element.
TEST(Feedback, ReshardingConservesWhatIsOwed) {
  for (const auto& [dtype, residual] : kinds()) {
    for (const int from : thinned({1, 3, 4})) {
      for (const int to : thinned({1, 2, 4, 5, 8})) {
        const std::size_t count = 600;
        Setting s{
            .ranks = from, .count = count, .dtype = dtype, .codec = "onebit:block=64", .residual = residual};
        Rig old(s);
        for (std::uint64_t step = 0; step < 3; ++step) old.call(plain_inputs(s, step));
        std::vector<double> owed(count, 0.0);
        for (const auto& worker : old.workers()) {
          for (std::size_t i = 0; i < count; ++i) owed[i] += worker[i] / from;
        }
        const auto old_chunks = old.chunks();
        const auto old_servers = old.servers();
        for (std::size_t r = 0; r < old_chunks.size(); ++r) {
          for (std::size_t k = 0; k < old_chunks[r].count; ++k)
            owed[old_chunks[r].offset + k] += old_servers[r][k];
        }
        if (residual == ResidualType::bf16) {  // a sum of such residuals is rounded to one
          for (double& v : owed) v = round_to(v, DType::bf16);
        }
        s.ranks = to;
        Rig now(s);
        SCOPED_TRACE(text_of(s) + " after " + std::to_string(from));
        const auto saves = saves_of(old);
        for (int r = 0; r < to; ++r) now.feedback(r).load(std::span<const Bytes>(saves));
        const auto inputs = plain_inputs(s, 77);
        const auto result = now.call(inputs);
        ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
        // as if the residuals had been: e = 0, s = owed
        const auto chunks = now.chunks();
        Rig::Matrix workers(static_cast<std::size_t>(to), std::vector<double>(count, 0.0));
        Rig::Matrix servers;
        for (const Range& chunk : chunks) {
          servers.emplace_back(owed.begin() + static_cast<std::ptrdiff_t>(chunk.offset),
                               owed.begin() + static_cast<std::ptrdiff_t>(chunk.end()));
        }
        ASSERT_NO_FATAL_FAILURE(expect_nothing_lost(now, inputs, result, workers, servers));
        for (int r = 0; r < to; ++r) EXPECT_EQ(now.feedback(r).calls(), 4u);
        now.call(plain_inputs(s, 78));
        EXPECT_EQ(code_of([&] { now.feedback(0).save(); }), "accepted");
      }
    }
  }
}

TEST(Feedback, SavesOfOtherRunsAreNotMixed) {
  const Setting s{.ranks = 3, .count = 300, .codec = "onebit:block=64"};
  Rig rig(s);
  rig.call(plain_inputs(s, 1));
  const auto good = saves_of(rig);
  for (const Bytes& save : good) ASSERT_FALSE(save.empty());
  rig.call(plain_inputs(s, 2));
  const auto later = saves_of(rig);
  Setting longer = s;
  longer.count = 301;
  Rig other(longer);
  other.call(plain_inputs(longer, 1));
  Feedback feedback;
  feedback.load(good[1]);
  const auto load = [&](std::vector<Bytes> saves) {
    return code_of([&] { feedback.load(std::span<const Bytes>(saves)); });
  };
  EXPECT_EQ(load({good[1], good[0], good[2]}), "invalid_argument");
  EXPECT_EQ(load({good[0], good[1]}), "invalid_argument");
  EXPECT_EQ(load({good[0], good[1], good[1]}), "invalid_argument");
  EXPECT_EQ(load({good[0], later[1], good[2]}), "invalid_argument") << "made after another call";
  EXPECT_EQ(load({good[0], other.feedback(1).save(), good[2]}), "invalid_argument");
  EXPECT_EQ(load({good[0], {}, good[2]}), "invalid_argument");
  EXPECT_EQ(load({{}, good[1], good[2]}), "invalid_argument");
  Setting half = s;
  half.residual = ResidualType::bf16;
  Rig halves(half);
  halves.call(plain_inputs(half, 1));
  EXPECT_EQ(load({good[0], halves.feedback(1).save(), good[2]}), "invalid_argument") << "of another type";
  Bytes broken = good[1];
  broken[broken.size() / 2] ^= std::byte{1};
  EXPECT_EQ(load({good[0], broken, good[2]}), "corrupt_data");
  EXPECT_EQ(feedback.save(), good[1]) << "a load that failed changed something";
}

TEST(Feedback, ForeignBytesAreRefusedAndChangeNothing) {
  const Setting s{.ranks = 2, .count = 40, .codec = "onebit:block=8"};
  Rig rig(s);
  rig.call(plain_inputs(s, 1));
  const Bytes good = rig.feedback(0).save();
  ASSERT_FALSE(good.empty());
  Feedback feedback;
  feedback.load(rig.feedback(1).save());
  const Bytes held = feedback.save();
  const auto refused = [&](Bytes bytes) {
    bytes.shrink_to_fit();
    return code_of([&] { feedback.load(std::span<const std::byte>(bytes)); });
  };
  for (std::size_t n = 1; n < good.size(); ++n) {
    ASSERT_EQ(refused(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n))), "corrupt_data")
        << n;
  }
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes flipped = good;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    ASSERT_EQ(refused(flipped), "corrupt_data") << "bit " << bit;
  }
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    Bytes bytes(1 + random() % 300);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    ASSERT_EQ(refused(bytes), "corrupt_data");
  }
  Bytes longer = good;
  longer.push_back(std::byte{0});
  EXPECT_EQ(refused(longer), "corrupt_data");
  EXPECT_EQ(feedback.save(), held);
  EXPECT_EQ(refused(good), "accepted");
  EXPECT_EQ(feedback.save(), good);
}

/// Another count, dtype, codec or number of ranks is an error on all ranks until reset.
TEST(Feedback, ServesOneTensor) {
  const Setting first{.ranks = 3, .count = 300, .codec = "onebit:block=64"};
  std::vector<Setting> others(4, first);
  others[0].count = 301;
  others[1].dtype = DType::bf16;
  others[2].codec = "onebit:block=32";
  others[3].ranks = 2;
  for (const Setting& other : others) {
    SCOPED_TRACE(text_of(other));
    Rig rig(first);
    rig.call(plain_inputs(first, 1));
    Rig next(other);
    for (int r = 0; r < other.ranks; ++r) next.feedback(r) = std::move(rig.feedback(r));
    const auto held = next.feedback(1).save();
    auto result = next.call(plain_inputs(other, 1));
    for (const std::string& error : result.errors) {
      EXPECT_EQ(error.substr(0, 14), "invalid_state:") << error;
      EXPECT_NE(error.find("reset"), std::string::npos) << "what to do is missing: " << error;
    }
    EXPECT_EQ(next.feedback(1).save(), held);
    for (int r = 0; r < other.ranks; ++r) next.feedback(r).reset();
    EXPECT_EQ(next.feedback(0).calls(), 0u);
    check_call(next, normal_inputs(next, 2));
  }
}

TEST(Feedback, KeepsItsTypeUntilASaveBringsAnother) {
  Feedback feedback(ResidualType::bf16);
  EXPECT_EQ(feedback.residual_type(), ResidualType::bf16);
  feedback.load(Bytes{});
  EXPECT_EQ(feedback.residual_type(), ResidualType::bf16) << "nothing was saved";
  feedback.load(std::vector<Bytes>(3));
  feedback.reset();
  EXPECT_EQ(feedback.residual_type(), ResidualType::bf16);
  const Setting s{.ranks = 2, .count = 300, .codec = "onebit:block=64"};
  Rig rig(s);
  rig.call(plain_inputs(s, 1));
  const auto saves = saves_of(rig);
  feedback.load(std::span<const std::byte>(saves[0]));
  EXPECT_EQ(feedback.residual_type(), ResidualType::full);
  feedback = Feedback(ResidualType::bf16);
  feedback.load(std::span<const Bytes>(saves));
  EXPECT_EQ(feedback.residual_type(), ResidualType::full);
  EXPECT_EQ(code_of([&] { feedback.load(Bytes(20)); }), "corrupt_data");
  EXPECT_EQ(feedback.residual_type(), ResidualType::full);
}

/// What the format was before residuals had types, before codecs had a state, and before that had a size:
/// byte for byte by its description.
TEST(Feedback, SavesOfOlderFormatsAreLoaded) {
  const Setting s{.ranks = 2, .count = 300, .dtype = DType::f16, .codec = "onebit:block=64"};
  Rig rig(s);
  rig.call(plain_inputs(s, 1));
  for (int r = 0; r < 2; ++r) {
    const Bytes now = rig.feedback(r).save();
    const auto with_sum = [](Bytes save) {
      const std::uint64_t sum = hash(save);
      for (int i = 0; i < 8; ++i) save.push_back(static_cast<std::byte>(sum >> (8 * i)));
      return save;
    };
    Bytes old(now.begin(), now.end() - 8);
    old[8] = std::byte{5};  // the version, in 4 bytes behind the magic
    Feedback feedback(ResidualType::bf16);
    EXPECT_EQ(code_of([&] { feedback.load(std::span<const std::byte>(with_sum(old))); }), "unsupported");
    old.resize(old.size() - 16);  // the codec's state: no rows, no bytes
    old[8] = std::byte{3};
    Bytes third = old;
    third.resize(third.size() + 16);  // a state of a fixed size, of zeros
    feedback.load(std::span<const std::byte>(with_sum(third)));
    EXPECT_EQ(feedback.save(), now);
    old[8] = std::byte{2};
    feedback.load(std::span<const std::byte>(with_sum(old)));
    EXPECT_EQ(feedback.save(), now);
    old[8] = std::byte{1};
    old.erase(old.begin() + 8 + 4 + 8 + 1);  // the type, behind version, count and dtype
    feedback = Feedback(ResidualType::bf16);
    feedback.load(std::span<const std::byte>(with_sum(old)));
    EXPECT_EQ(feedback.residual_type(), ResidualType::full);
    EXPECT_EQ(feedback.save(), now);
  }
}

/// One error on all ranks, before the first call and later; it says who has what.
TEST(Feedback, RanksOfDifferentTypesAreRefused) {
  for (const int calls : {0, 2}) {
    const Setting s{.ranks = 3, .count = 300, .codec = "onebit:block=64"};
    Rig rig(s);
    for (int call = 0; call < calls; ++call) rig.call(plain_inputs(s, 1));
    const auto workers = rig.workers();
    Setting half = s;
    half.residual = ResidualType::bf16;
    Rig other(half);
    for (int call = 0; call < calls; ++call) other.call(plain_inputs(s, 1));
    rig.feedback(1) = std::move(other.feedback(1));
    const auto result = rig.call(plain_inputs(s, 2));
    for (const std::string& error : result.errors) {
      EXPECT_EQ(error.substr(0, 9), "mismatch:") << error;
      EXPECT_EQ(error, result.errors[0]);
      EXPECT_NE(error.find("residuals in bf16 on rank 1"), std::string::npos) << error;
    }
    EXPECT_EQ(rig.feedback(0).calls(), static_cast<std::uint64_t>(calls));
    const auto workers_now = rig.workers();
    for (std::size_t i = 0; i < s.count; ++i) {
      EXPECT_NEAR(workers_now[0][i], workers[0][i], 1e-5) << "what was encoded is taken back";
    }
  }
}

/// A call that comes to nothing leaves residuals of bf16 as they were, to their rounding.
TEST(Feedback, ACallThatIsRefusedIsTakenBack) {
  for (const char* codec : {"onebit:block=64", "cast:bf16"}) {
    const Setting s{
        .ranks = 3, .count = 5000, .codec = codec, .residual = ResidualType::bf16, .segment_bytes = 3000};
    Rig rig(s);
    rig.call(plain_inputs(s, 1));
    const auto workers = rig.workers();
    const auto servers = rig.servers();
    const auto result =
        rig.call(plain_inputs(s, 2), {}, [](int rank, Call& call) { call.checksum = rank == 2; });
    for (const std::string& error : result.errors) EXPECT_EQ(error.substr(0, 9), "mismatch:") << error;
    const auto workers_now = rig.workers();
    for (std::size_t r = 0; r < workers.size(); ++r) {
      for (std::size_t i = 0; i < s.count; ++i) {
        ASSERT_NEAR(workers_now[r][i], workers[r][i], 8 * unit_roundoff(DType::bf16)) << codec;
      }
    }
    ASSERT_EQ(rig.servers(), servers);
  }
}

/// There are none in bf16 for f64: the sentence says so, on all ranks, and nothing is bound.
TEST(Feedback, ResidualsOfF64AreNotKeptInBf16) {
  const Setting s{.ranks = 2, .count = 300, .dtype = DType::f64, .codec = "onebit:block=64"};
  Setting half = s;
  half.residual = ResidualType::bf16;
  Rig rig(half);
  const auto result = rig.call(plain_inputs(s, 1));
  for (const std::string& error : result.errors) {
    EXPECT_EQ(error.substr(0, 12), "unsupported:") << error;
    EXPECT_NE(error.find("residuals in bf16 does not serve a tensor of f64"), std::string::npos) << error;
  }
  EXPECT_TRUE(rig.feedback(0).worker().empty());
  Setting lossless = half;
  lossless.codec = "identity";
  Rig exact(lossless);
  EXPECT_EQ(exact.call(exact_inputs(lossless, 1)).errors[0], "") << "nothing is kept";
}

/// Of 60 calls with one input, the mean comes to the average as near as the roundings let it: with residuals
/// of f32 and of bf16, and no nearer with the latter.
TEST(Feedback, MeansComeNearWithEitherType) {
  constexpr int kCalls = 60;
  double errors[2] = {};
  for (const ResidualType residual : {ResidualType::full, ResidualType::bf16}) {
    const Setting s{.ranks = 4, .count = 4096, .codec = "onebit:block=256", .residual = residual};
    Rig rig(s);
    const auto inputs = plain_inputs(s, 1);
    std::vector<double> sum(s.count);
    for (int call = 0; call < kCalls; ++call) {
      const auto out = rig.call(inputs).out[0].doubles();
      for (std::size_t i = 0; i < s.count; ++i) sum[i] += out[i];
    }
    double error = 0;
    double size = 0;
    for (std::size_t i = 0; i < s.count; ++i) {
      double want = 0;
      for (const auto& row : inputs) want += row[i] / s.ranks;
      error += (sum[i] / kCalls - want) * (sum[i] / kCalls - want);
      size += want * want;
    }
    errors[static_cast<std::size_t>(residual)] = std::sqrt(error / size);
  }
  RecordProperty("full", std::to_string(errors[0]));
  RecordProperty("bf16", std::to_string(errors[1]));
  EXPECT_LT(errors[0], 0.2);
  EXPECT_LT(errors[1], 1.2 * errors[0]) << errors[0];
  EXPECT_NE(errors[0], errors[1]);
}

/// A tensor that was never compressed is saved and moved like any other.
TEST(Feedback, UnusedOnesAreReshardedToo) {
  Feedback feedback;
  feedback.load(std::vector<Bytes>(3));
  EXPECT_EQ(feedback.calls(), 0u);
  EXPECT_TRUE(feedback.save().empty());
}

TEST(Feedback, SaysThatItWasMovedFrom) {
  Feedback feedback;
  const Feedback moved = std::move(feedback);
  feedback.reset();  // NOLINT(bugprone-use-after-move): what is tested
  EXPECT_EQ(code_of([&] { feedback.save(); }), "invalid_state");
  EXPECT_EQ(code_of([&] { static_cast<void>(feedback.calls()); }), "invalid_state");
  EXPECT_EQ(code_of([&] { feedback.load(Bytes{}); }), "invalid_state");
}

/// That plain MPI was chosen is remembered, saved and loaded, until residuals are kept after all.
TEST(Feedback, RemembersThatAutoDeclined) {
  const Setting s{.ranks = 2, .count = 300, .codec = "onebit:block=64"};
  Rig rig(s);
  const auto decline = [&](int rank, Call& call) {
    call.algorithm = &find_algorithm("exact");
    call.declines = true;
    call.feedback = &rig.feedback(rank);
  };
  const auto mismatched = rig.call(normal_inputs(rig, 3), {}, [&](int rank, Call& call) {
    decline(rank, call);
    if (rank == 1) call.op = Op::sum;
  });
  EXPECT_TRUE(mismatched.failed());
  EXPECT_FALSE(state_of(rig.feedback(0)).declined) << "all ranks are as before";
  EXPECT_FALSE(rig.call(normal_inputs(rig, 4), {}, decline).failed());
  EXPECT_TRUE(state_of(rig.feedback(0)).declined);
  const auto saves = saves_of(rig);
  Feedback loaded;
  loaded.load(std::span<const std::byte>(saves[1]));
  EXPECT_TRUE(state_of(loaded).declined);
  EXPECT_EQ(state_of(loaded).shape.count, 300u);
  EXPECT_EQ(loaded.save(), saves[1]);
  EXPECT_EQ(loaded.calls(), 0u);
  EXPECT_TRUE(loaded.worker().empty());
  loaded.load(std::span<const Bytes>(saves));
  EXPECT_FALSE(state_of(loaded).declined) << "other ranks decide anew";
  // a call that comes to nothing leaves that as it was
  const auto failed = rig.call(normal_inputs(rig, 1), {}, [](int rank, Call& c) {
    if (rank == 1) c.op = Op::sum;
  });
  EXPECT_TRUE(failed.failed());
  EXPECT_EQ(saves_of(rig), saves);
  check_call(rig, normal_inputs(rig, 1));
  EXPECT_FALSE(state_of(rig.feedback(0)).declined);
  EXPECT_EQ(rig.feedback(0).calls(), 1u);
}

}  // namespace
}  // namespace terse::test
