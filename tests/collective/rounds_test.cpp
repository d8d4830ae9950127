// SPDX-License-Identifier: Apache-2.0
//
// What a codec may ask of the library beyond sum8 and randomk: rounds that are all sums, the rows of a
// matrix, and a state that grows with the tensor. The codec here has them all: a matrix M is reduced as the
// product of two vectors, by one step of the power method a call (PowerSGD, Vogels et al., NeurIPS 2019, with
// rank 1).
#include "codec/rounds.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "codec/feedback_state.hpp"
#include "core/bytes.hpp"
#include "support/rig.hpp"

namespace terse::test {
namespace {

using Row = std::vector<double>;

/// Rounds: P = M q, summed, and Q = M^T p with p = P / |P|, summed; the result is p Q^T, and Q is the next
/// call's q. What a rank leaves in its residual is M - p Q^T with its own Q.
class RankOne final : public Codec, private CodecInternals, private RoundsCodec {
 public:
  RankOne() : Codec("rank_one", "rank_one", traits_of()) {}

 private:
  static CodecTraits traits_of() {
    CodecTraits traits;
    traits.whole_tensor = true;
    traits.summable = true;
    traits.contractive = true;
    return traits;
  }

  const CodecInternals* do_internals() const noexcept override { return this; }
  const RoundsCodec* rounds() const noexcept override { return this; }
  bool do_supports(DType dtype) const noexcept override { return dtype == DType::f32; }
  std::size_t do_state_bytes(std::size_t count, DType, std::size_t rows) const override {
    return columns_of(count, rows) * sizeof(float);
  }
  // It has no messages of its own: with algorithms that send some, all of a tensor is resent.
  std::size_t do_max_bytes(std::size_t, DType) const override { return 0; }
  std::optional<std::size_t> do_encode(ConstView, DType, const EncodeContext&,
                                       std::span<std::byte>) const override {
    return std::nullopt;
  }
  void do_decode(std::span<const std::byte>, DType, View, Into, double) const override {
    throw Error(ErrorCode::corrupt_data, "rank_one has no messages");
  }

  static std::size_t rows_of(std::size_t rows) { return rows == 0 ? 1 : rows; }
  static std::size_t columns_of(std::size_t count, std::size_t rows) { return count / rows_of(rows); }

  std::span<const Round> rounds_in_order() const noexcept override {
    static constexpr std::array<Round, 2> kRounds = {
        {{Round::Kind::sum, Addend::accumulator}, {Round::Kind::sum, Addend::accumulator}}};
    return kRounds;
  }
  std::size_t most_ranks() const noexcept override { return 1000; }
  std::size_t round_bytes(std::size_t round, std::size_t count, DType, std::size_t rows) const override {
    return (round == 0 ? rows_of(rows) : columns_of(count, rows)) * sizeof(float);
  }

  static std::vector<float> floats(std::span<const std::byte> bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  static std::vector<float> unit(std::vector<float> p) {
    double square = 0;
    for (const float v : p) square += static_cast<double>(v) * v;
    const auto length = static_cast<float>(std::sqrt(square));
    for (float& v : p) v = length == 0 ? 0 : v / length;
    return p;
  }

  bool contribute(std::size_t round, ConstView values, View residual, const RoundContext& context,
                  const RoundResults& earlier, std::span<std::byte> out) const noexcept override {
    const std::size_t rows = rows_of(context.encode.rows);
    const std::size_t columns = values.count / rows;
    const auto value = [&](std::size_t i) {
      return values.as<float>()[i] + (residual.data == nullptr ? 0.0F : residual.as<float>()[i]);
    };
    std::vector<float> made(out.size() / sizeof(float));
    bool well = true;
    if (round == 0) {
      std::vector<float> q = floats(context.encode.state);
      bool fresh = true;
      for (const float v : q) fresh = fresh && v == 0;
      if (fresh) q.assign(columns, 1.0F);
      for (std::size_t i = 0; i < values.count; ++i) {
        well = well && std::isfinite(value(i));
        made[i / columns] += value(i) * q[i % columns];
      }
    } else {
      const std::vector<float> p = unit(floats(earlier[0]));
      for (std::size_t i = 0; i < values.count; ++i) made[i % columns] += value(i) * p[i / columns];
      for (std::size_t i = 0; i < values.count && residual.data != nullptr; ++i) {
        residual.as<float>()[i] = value(i) - p[i / columns] * made[i % columns];
      }
    }
    std::memcpy(out.data(), made.data(), out.size());
    return well;
  }

  void conclude(const RoundContext& context, const RoundResults& results, View out,
                double factor) const noexcept override {
    const std::vector<float> p = unit(floats(results[0]));
    const std::vector<float> q = floats(results[1]);
    for (std::size_t i = 0; i < out.count; ++i) {
      out.as<float>()[i] = static_cast<float>(factor) * p[i / q.size()] * q[i % q.size()];
    }
    if (!context.encode.state.empty())
      std::memcpy(context.encode.state.data(), results[1].data(), results[1].size());
  }
};

constexpr std::size_t kRows = 6;
constexpr std::size_t kColumns = 5;
constexpr int kRanks = 3;

Setting setting() {
  static const bool registered = [] {
    register_codec({.name = "rank_one",
                    .summary = "a matrix as the product of two vectors",
                    .options = {},
                    .examples = {},
                    .make = [](const CodecArguments&) { return std::make_shared<RankOne>(); }});
    return true;
  }();
  EXPECT_TRUE(registered);
  return {.ranks = kRanks, .count = kRows * kColumns, .codec = "rank_one", .algorithm = "summed"};
}

void with_rows(int, Call& call) { call.rows = kRows; }

Row sum_of(const Rig::Matrix& rows) {
  Row sum(rows[0].size());
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += row[i];
  }
  return sum;
}

TEST(Rounds, AreChosenAndSized) {
  const Rig rig(setting());
  EXPECT_EQ(algorithm_for(*rig.codec(), kRanks).name, "summed");
  EXPECT_EQ(rig.codec()->state_bytes(kRows * kColumns, DType::f32, kRows), kColumns * sizeof(float));
  const std::vector<std::size_t> rows = {kRows};
  Problem problem = rig.problem(0);
  problem.segment_bytes = 8;  // what is encoded as a whole has one segment
  problem.rows = rows;
  const Schedule schedule = rig.algorithm().build(problem);
  ASSERT_EQ(schedule.slots().size(), 2u);
  EXPECT_EQ(schedule.slots()[0].count, (1 + kRows) * sizeof(float));
  EXPECT_EQ(schedule.slots()[1].count, kColumns * sizeof(float));
  problem.rows = {};
  EXPECT_EQ(rig.algorithm().build(problem).slots()[0].count, 2 * sizeof(float));
}

/// Matrices that have one column space sum up to one of rank 1, which is then exact, but for rounding.
TEST(Rounds, SumOfRankOneMatricesIsFound) {
  Setting s = setting();
  for (const Op op : {Op::sum, Op::average}) {
    s.op = op;
    Rig rig(s);
    Rig::Matrix inputs(kRanks, Row(kRows * kColumns));
    for (std::size_t r = 0; r < kRanks; ++r) {
      for (std::size_t i = 0; i < inputs[r].size(); ++i) {
        inputs[r][i] =
            (1.0 + static_cast<double>(i / kColumns)) * (0.5 + static_cast<double>((r + 2) * (i % kColumns)));
      }
    }
    const auto result = rig.call(inputs, {}, with_rows);
    ASSERT_FALSE(result.failed()) << result.errors[0];
    const Row want = sum_of(inputs);
    for (std::size_t r = 0; r < kRanks; ++r) {
      EXPECT_TRUE(result.out[r].same_bits(result.out[0]));
      for (std::size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(result.out[r][i], want[i] / (op == Op::average ? kRanks : 1), 1e-4 * want.back());
        EXPECT_NEAR(rig.workers()[r][i], 0, 1e-5 * want.back());
      }
    }
  }
}

/// What is not in the result is in the residuals, and comes with later calls: their mean nears the sum.
TEST(Rounds, NothingIsLost) {
  Setting s = setting();
  s.op = Op::sum;
  Rig rig(s);
  const auto inputs = normal_inputs(rig, 7);
  const Row want = sum_of(inputs);
  constexpr int kCalls = 60;
  Row total(want.size());
  double first_error = 0;
  for (int call = 1; call <= kCalls; ++call) {
    const auto result = rig.call(inputs, {}, with_rows);
    ASSERT_FALSE(result.failed()) << result.errors[0];
    for (std::size_t i = 0; i < want.size(); ++i) total[i] += result.out[0][i];
    const Row left = sum_of(rig.workers());
    double error = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(total[i] + left[i], call * want[i], 1e-3) << "call " << call << ", element " << i;
      error += std::abs(total[i] / call - want[i]);
    }
    if (call == 1) first_error = error;
    if (call == kCalls) {
      EXPECT_LT(error, 0.2 * first_error);
    }
  }
}

/// The state goes on after a save and a load; without it the next call is another one.
TEST(Rounds, StateIsKeptAndSaved) {
  Rig going(setting());
  Rig stopped(setting());
  Rig forgetting(setting());
  bool differs = false;
  for (std::uint64_t step = 1; step <= 4; ++step) {
    const auto inputs = normal_inputs(going, step);
    for (int r = 0; r < kRanks; ++r) {
      const auto saved = stopped.feedback(r).save();
      stopped.feedback(r).reset();
      stopped.feedback(r).load(std::span<const std::byte>(saved));
      for (std::byte& b : state_of(forgetting.feedback(r)).codec_state) b = std::byte{0};
    }
    const auto one = going.call(inputs, {}, with_rows);
    const auto other = stopped.call(inputs, {}, with_rows);
    ASSERT_FALSE(one.failed() || other.failed()) << one.errors[0] << other.errors[0];
    EXPECT_TRUE(one.out[0].same_bits(other.out[0])) << step;
    differs = differs || !forgetting.call(inputs, {}, with_rows).out[0].same_bits(one.out[0]);
    EXPECT_EQ(state_of(going.feedback(0)).codec_state, state_of(going.feedback(1)).codec_state);
  }
  EXPECT_TRUE(differs);
  // another number of rows has another state
  const auto result = going.call(normal_inputs(going, 1), {}, [](int, Call& call) { call.rows = 2; });
  for (const std::string& error : result.errors) {
    EXPECT_NE(
        error.find(
            "of 20 bytes for a matrix of 6 rows; this call wants one of 60 bytes for a matrix of 2 rows"),
        std::string::npos)
        << error;
  }
}

TEST(Rounds, AValueThatCannotBeSentIsResent) {
  Rig rig(setting());
  auto inputs = normal_inputs(rig, 3);
  inputs[1][4] = HUGE_VAL;
  const auto result = rig.call(inputs, {}, with_rows);
  ASSERT_FALSE(result.failed()) << result.errors[0];
  for (const CallResult& call : result.calls) EXPECT_EQ(call.exact_count, kRows * kColumns);
  EXPECT_EQ(result.out[2][4], HUGE_VAL);
  const Row want = sum_of(inputs);
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (i != 4) {
      EXPECT_NEAR(result.out[0][i], want[i] / kRanks, 1e-5) << i;
    }
  }
}

TEST(Rounds, RanksThatDisagreeOnRowsAreTold) {
  Rig rig(setting());
  const auto result =
      rig.call(normal_inputs(rig, 1), {}, [](int rank, Call& call) { call.rows = rank == 1 ? 3 : kRows; });
  for (const std::string& error : result.errors) {
    EXPECT_EQ(error, result.errors[0]);
    EXPECT_EQ(error.substr(0, 9), "mismatch:") << error;
    EXPECT_NE(error.find("rows"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace terse::test
