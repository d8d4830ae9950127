// SPDX-License-Identifier: Apache-2.0
//
// NaN, Inf and overflow in a collective: the pieces that hold them come out as a plain sum in rank order
// gives them, the rest is compressed as ever, residuals keep what they owe, and the next call knows nothing
// of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/checks.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

/// A clean call, one with the spots, and a clean one.
void check_sequence(const Setting& setting, const std::vector<Spot>& spots, std::uint64_t seed) {
  Rig rig(setting);
  std::string trace = text_of(setting);
  for (const Spot& s : spots) {
    trace += "; " + std::to_string(s.value) + " at " + std::to_string(s.element) + " on rank " +
             std::to_string(s.rank);
  }
  SCOPED_TRACE(trace);
  check_call(rig, normal_inputs(rig, seed), {.seed = seed});
  if (testing::Test::HasFatalFailure()) return;
  check_flagged_call(rig, normal_inputs(rig, seed + 1), spots, seed);
  if (testing::Test::HasFatalFailure()) return;
  check_call(rig, normal_inputs(rig, seed + 2), {.seed = seed});
}

TEST(FlaggedPieces, InEveryPosition) {
  const std::size_t count = 24 * 6 + 5;
  for (std::size_t at = 0; at < count; ++at) {
    const double bad[] = {kNan, kInfinity, -kInfinity};
    const Setting setting{.ranks = 3,
                          .count = count,
                          .op = at % 2 == 0 ? Op::average : Op::sum,
                          .codec = "onebit:block=24",
                          .residual = at % 5 < 2 ? ResidualType::bf16 : ResidualType::full,
                          .in_place = at % 4 < 2,
                          .segment_bytes = 1};
    check_sequence(setting, {{static_cast<int>(at % 3), at, bad[at / 3 % 3]}}, at + 1);
    if (HasFatalFailure()) return;
  }
}

TEST(FlaggedPieces, OnAnyRanksDtypesAndOptions) {
  std::uint64_t turn = 0;
  for (const int ranks : thinned({1, 2, 3, 4, 5, 8})) {
    for (const DType dtype : kAllDTypes) {
      for (const Op op : {Op::average, Op::sum}) {
        for (const bool in_place : {false, true}) {
          ++turn;
          if (kSanitized && (turn + turn / 2) % 2 != 0) continue;  // in place and not, in turn
          Setting s{
              .ranks = ranks, .count = 64 * 13 + 5, .dtype = dtype, .op = op, .codec = "onebit:block=64"};
          s.in_place = in_place;
          s.feedback = turn % 5 != 0;
          if (turn % 7 < 3 && dtype != DType::f64) s.residual = ResidualType::bf16;
          s.checksum = turn % 7 == 0;
          s.style = style_of(turn);
          s.segment_bytes =
              turn % 3 == 0 ? 1 : std::size_t{64} * 2 * size_of(dtype) * static_cast<std::size_t>(ranks);
          const int rank = static_cast<int>(turn) % ranks;
          const int other = (rank + 1) % ranks;
          const std::size_t late = s.count - 1;
          for (const double bad : {kNan, kInfinity, -kInfinity}) {
            check_sequence(s, {{rank, 70, bad}}, turn);
            if (HasFatalFailure()) return;
          }
          check_sequence(s, {{rank, 3, kNan}, {other, late, kInfinity}}, turn);  // two pieces
          if (HasFatalFailure()) return;
          check_sequence(s, {{rank, 300, kInfinity}, {other, 301, -kInfinity}, {rank, 302, kInfinity}}, turn);
          if (HasFatalFailure()) return;
          if (ranks > 1)
            check_sequence(s, {{rank, 300, kInfinity}, {other, 300, -kInfinity}}, turn);  // NaN is made
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(FlaggedPieces, AllOfThem) {
  for (const int ranks : {2, 5}) {
    const Setting s{.ranks = ranks, .count = 1000, .codec = "onebit:block=64", .segment_bytes = 1000};
    std::vector<Spot> spots;
    for (std::size_t i = 0; i < s.count; ++i) {
      // NOLINTNEXTLINE(bugprone-narrowing-conversions): clang-tidy takes a NaN for more than a double holds
      spots.push_back({static_cast<int>(i) % ranks, i, i % 2 == 0 ? kNan : kInfinity});
    }
    check_sequence(s, spots, 3);
    if (HasFatalFailure()) return;
  }
}

/// Values beyond cast:f16's range are flagged: the sum comes out as f32 gives it.
TEST(FlaggedPieces, ValuesBeyondTheCodecsRange) {
  for (const Op op : {Op::average, Op::sum}) {
    Rig rig({.ranks = 4, .count = 1000, .op = op, .codec = "cast:f16", .segment_bytes = 1600});
    const auto inputs = exact_inputs(rig.setting(), 1);
    check_call(rig, normal_inputs(rig, 2));
    check_flagged_call(rig, inputs, {{2, 501, 1e6}, {1, 7, -65520.0}}, 1);
    if (HasFatalFailure()) return;
    check_call(rig, normal_inputs(rig, 3));
  }
}

/// A flag that is born in phase 2: each part is finite, their sum is not.
TEST(FlaggedPieces, OverflowOfTheSum) {
  for (const bool in_place : {false, true}) {
    Rig rig({.ranks = 4, .count = 100, .codec = "onebit:block=8", .in_place = in_place, .segment_bytes = 1});
    check_call(rig, normal_inputs(rig, 1));
    const double most = std::numeric_limits<float>::max();
    Rig::Matrix inputs = normal_inputs(rig, 2);
    const auto workers = rig.workers();
    const auto servers = rig.servers();
    // the block at 96 has four elements: their sums overflow on no rank alone
    for (auto& row : inputs) {
      for (std::size_t i = 96; i < 100; ++i) row[i] = round_to(most / 4.5, DType::f32);
    }
    for (std::size_t i = 96; i < 100; ++i) inputs[1][i] = round_to(most / 5, DType::f32);
    const auto small = rig.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(small));
    EXPECT_EQ(small.calls[0].exact_count, 0u) << "finite as an average";
    for (auto& row : inputs) row[99] = row[98] = row[97] = row[96] = 0;
    for (auto& row : inputs) row[96] = round_to(most / 2, DType::f32);
    const auto large = rig.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(large));
    EXPECT_EQ(large.calls[0].exact_count, 0u) << "blocks hold quarters of it";
  }
  Rig rig({.ranks = 4, .count = 1, .op = Op::sum});
  const double third = round_to(std::numeric_limits<float>::max() / 3, DType::f32);
  const auto result = rig.call(Rig::Matrix(4, {third}));
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  EXPECT_EQ(result.out[0][0], kInfinity);
  EXPECT_EQ(result.calls[0].exact_count, 1u);
  for (int r = 0; r < 4; ++r) EXPECT_EQ(rig.workers()[static_cast<std::size_t>(r)][0], 0.0);
  EXPECT_EQ(rig.servers()[0][0], 0.0);
}

/// f16 tensors: values at the edge of the range, averages inside it.
TEST(FlaggedPieces, HalfPrecisionAtItsEdge) {
  Rig rig({.ranks = 4, .count = 64, .dtype = DType::f16, .codec = "onebit:block=8"});
  Rig::Matrix inputs(4, std::vector<double>(64, 65504.0));
  auto result = rig.call(inputs);
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(result.out[0][i], 65504.0);
  inputs[3][9] = kInfinity;
  result = rig.call(inputs);
  ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
  EXPECT_EQ(result.out[0][9], kInfinity);
  EXPECT_EQ(result.out[0][0], 65504.0);
  EXPECT_EQ(result.calls[0].exact_count, 16u) << "the chunk that holds it";
}

/// A sum beyond the type's range where each rank's value, and the average, is within: as f16 sums give it.
TEST(FlaggedPieces, SumsBeyondTheRangeOfTheType) {
  for (const char* codec : {"onebit:block=8", "onebit:block=8,scale=rms"}) {
    Rig rig({.ranks = 2,
             .count = 32,
             .dtype = DType::f16,
             .op = Op::sum,
             .codec = codec,
             .feedback = std::string(codec).find("rms") == std::string::npos,
             .segment_bytes = 1});
    Rig::Matrix inputs(2, std::vector<double>(32, 100.0));
    for (auto& row : inputs) std::fill_n(row.begin() + 8, 8, 40000.0);
    const auto result = rig.call(inputs);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(result));
    EXPECT_EQ(result.calls[0].exact_count, 8u);
    for (std::size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(result.out[0][i], i / 8 == 1 ? kInfinity : 200.0) << i;
    }
    for (const Rig::Matrix& residuals : {rig.workers(), rig.servers()}) {
      for (const auto& of_rank : residuals) {
        for (const double e : of_rank) EXPECT_EQ(e, 0.0);
      }
    }
  }
}

}  // namespace
}  // namespace terse::test
