// SPDX-License-Identifier: Apache-2.0
//
// The schedules of every algorithm in the table, of all ranks of a call together, are sound whatever the
// order in which messages come and steps end, and do what docs/algorithms.md says. TERSE_TEST_NIGHTLY=1 adds
// up to 512 ranks.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "collective/algorithms.hpp"
#include "proof/checker.hpp"
#include "proof/jobs.hpp"
#include "support/covering.hpp"

namespace terse::test::proof {
namespace {

constexpr std::size_t kBlock = 64;
constexpr int kFewRanks = 8;
constexpr int kMostRanks = 64;

struct Variant {
  const char* codec;
  Op op;
  bool feedback;
  DType dtype = DType::f32;
};

// Of codecs: small blocks, elements one by one, sizes that vary, a whole tensor at once, parts of that,
// addends.
constexpr Variant kVariants[] = {
    {"onebit:block=64", Op::average, true},
    {"identity", Op::sum, false},
    {"onebit:block=64", Op::sum, true},
    {"topk:ratio=0.1", Op::average, true},
    {"quant:bits=4,block=64", Op::average, false, DType::f16},
    {"onebit:deepspeed", Op::average, true},
    {"onebit:deepspeed", Op::sum, true},
    {"onebit:deepspeed", Op::average, false},
    {"sum8:block=64", Op::average, true},
    {"sum4:block=64", Op::sum, true},
    {"randomk:ratio=0.1", Op::sum, true},
    {"identity", Op::average, false, DType::f64},
    {"quant:bits=4,block=64+lossless", Op::sum, false},
};

std::vector<Variant> variants_of(const std::string& algorithm, int ranks) {
  std::vector<Variant> allowed;
  for (const Variant& v : kVariants) {
    if (is_allowed({.algorithm = algorithm,
                    .codec = v.codec,
                    .ranks = ranks,
                    .tensors = {1},
                    .dtype = v.dtype,
                    .op = v.op,
                    .feedback = v.feedback})) {
      allowed.push_back(v);
    }
  }
  return allowed;
}

struct Size {
  std::vector<std::size_t> tensors;
  std::size_t blocks_a_piece;  ///< of the two phases
};

// Every class of counts modulo block and chunk, and lists.
std::vector<Size> sizes_of(int ranks) {
  const auto p = static_cast<std::size_t>(ranks);
  constexpr std::size_t b = kBlock;
  const std::size_t chunk = 3 * b;
  return {
      {{0}, 1},
      {{1}, 1},
      {{b - 1}, 1},
      {{b}, 1},
      {{b + 1}, 1},
      {{p * b}, 1},
      {{p * chunk - 1}, 3},
      {{p * chunk}, 3},
      {{p * chunk + 1}, 3},
      {{(p - 1) * chunk + b}, 4},
      {{(p + 1) * chunk}, 3},
      {{99991}, (99991 / b + p - 1) / p},  // a prime, in one segment
      {{4 * p * b + 1}, 1},                // five segments: the first one's slots are used again
      {{(8 * p + p / 2) * b + 7}, 1},      // nine, the last one not full
      {{13 * p * b - 2}, 2},               // seven, the last one of single blocks
      {{0, p * b + 5, 0, 0, 3, b, 2 * b + 1},
       2},  // tensors, of which some are empty, and some less than a block
      {{1, 1, 1, 0}, 1},
      {{5 * p * b, b / 2, 4 * p * b - 3, 0, 1}, 2},
  };
}

Case case_of(const std::string& algorithm, const Variant& v, int ranks, const Size& size) {
  return {.algorithm = algorithm,
          .codec = v.codec,
          .ranks = ranks,
          .tensors = size.tensors,
          .dtype = v.dtype,
          .op = v.op,
          .feedback = v.feedback,
          .segment_bytes = static_cast<std::size_t>(ranks) * kBlock * size.blocks_a_piece * size_of(v.dtype)};
}

void expect_sound(const Job& job) {
  for (const std::string& sentence : violations_of(job)) ADD_FAILURE() << sentence;
}

// Sets of pieces that are flagged: by their number in tensor order.
std::vector<std::vector<Piece>> flagged_sets(const std::vector<Piece>& pieces, int ranks) {
  std::vector<Piece> alternate;
  std::vector<Piece> one_an_owner;
  std::vector<bool> has(static_cast<std::size_t>(ranks), false);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (i % 2 == 0) alternate.push_back(pieces[i]);
    const auto owner = static_cast<std::size_t>(pieces[i].owner);
    if (!has[owner]) one_an_owner.push_back(pieces[i]);
    has[owner] = true;
  }
  return {{pieces[pieces.size() / 2]}, pieces, alternate, one_an_owner, {pieces.back()}};
}

class Schedules : public testing::TestWithParam<std::string_view> {
 protected:
  std::string algorithm() const { return std::string(GetParam()); }

  // In all variants; or every other size, each in one variant, which one is `turn`'s affair.
  void prove(int ranks, std::size_t& turn, bool all_variants) {
    const auto variants = variants_of(algorithm(), ranks);
    ASSERT_FALSE(variants.empty()) << "no codec among kVariants for " << algorithm() << " on " << ranks;
    const auto sizes = sizes_of(ranks);
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      const Size& size = sizes[k];
      if (!all_variants && (k + static_cast<std::size_t>(ranks)) % 2 != 0) continue;
      const std::size_t most = all_variants ? variants.size() : 1;
      for (std::size_t n = 0, tried = 0; n < most && tried < variants.size(); ++tried) {
        const Case one = case_of(algorithm(), variants[turn++ % variants.size()], ranks, size);
        if (!is_allowed(one)) continue;  // one tensor a call, perhaps
        ++n;
        ++jobs_;
        const Job job = job_of(one);
        expect_sound(job);
        if (find_algorithm(one.algorithm).build_pieces == nullptr) continue;
        const auto pieces = pieces_of(job);
        if (pieces.empty()) continue;
        const auto sets = flagged_sets(pieces, ranks);
        const std::size_t most_sets = ranks <= kFewRanks ? sets.size() : 1;
        for (std::size_t s = 0; s < most_sets; ++s) {
          ++jobs_;
          expect_sound(resending_job_of(one, sets[resent_++ % sets.size()]));
        }
        if (HasFailure()) return;
      }
    }
  }

  std::size_t jobs_ = 0;
  std::size_t resent_ = 0;
};

TEST_P(Schedules, AreProvenOnFewRanksInEveryVariant) {
  std::size_t turn = 0;
  for (int ranks = 1; ranks <= kFewRanks; ++ranks) ASSERT_NO_FATAL_FAILURE(prove(ranks, turn, true));
  RecordProperty("jobs", static_cast<int>(jobs_));
}

TEST_P(Schedules, AreProvenOnManyRanksInTurn) {
  std::size_t turn = 0;
  for (int ranks = kFewRanks + 1; ranks <= kMostRanks; ++ranks) {
    ASSERT_NO_FATAL_FAILURE(prove(ranks, turn, false));
  }
  RecordProperty("jobs", static_cast<int>(jobs_));
}

TEST_P(Schedules, AreProvenOnHundredsOfRanks) {
  if (!nightly()) GTEST_SKIP() << "skipped: takes minutes and gigabytes; set TERSE_TEST_NIGHTLY=1";
  for (const int ranks : {65, 96, 127, 128, 200, 256, 333, 511, 512}) {
    const auto p = static_cast<std::size_t>(ranks);
    const auto variants = variants_of(algorithm(), ranks);
    const std::size_t many = ranks <= 256 ? 5 : 1;  // segments
    const Variant& v = variants[p % variants.size()];
    const Size size{{(many * p - p / 3) * kBlock + 1}, 1};
    const Case one = case_of(algorithm(), v, ranks, size);
    const Job job = job_of(one);
    expect_sound(job);
    if (find_algorithm(one.algorithm).build_pieces == nullptr) continue;
    const auto sets = flagged_sets(pieces_of(job), ranks);
    expect_sound(resending_job_of(one, sets[p % sets.size()]));
  }
}

std::vector<std::string_view> algorithms() {
  std::vector<std::string_view> names;
  for (const Algorithm& row : algorithm_table()) names.push_back(row.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Table, Schedules, testing::ValuesIn(algorithms()),
                         [](const auto& one) { return std::string(one.param); });

// The table's formulas as they are written, where chunks and segments come out even.
TEST(Documents, MessagesAndBytesOfTwoPhaseAreThoseOfTheTable) {
  for (const int ranks : {2, 3, 8}) {
    const auto p = static_cast<std::size_t>(ranks);
    const std::size_t segments = 6;
    const std::size_t elements = segments * p * kBlock;
    const Job job =
        job_of({.ranks = ranks, .tensors = {elements}, .segment_bytes = p * kBlock * sizeof(float)});
    const std::size_t encoded =
        segments * (16 + 4 + kBlock / 8);  // n / P: a header, a scale and a bit an element
    for (std::size_t r = 0; r < p; ++r) {
      EXPECT_EQ(job.messages[r], 2 * (p - 1) * segments);
      EXPECT_EQ(job.bytes[r], 2 * (p - 1) * encoded);
    }
    expect_sound(job);
  }
}

TEST(Documents, MessagesAndBytesOfGatherAreThoseOfTheTable) {
  for (const int ranks : {2, 3, 8}) {
    const auto p = static_cast<std::size_t>(ranks);
    const Job job =
        job_of({.algorithm = "gather", .ranks = ranks, .tensors = {6 * kBlock}, .segment_bytes = 1});
    for (std::size_t r = 0; r < p; ++r) {
      EXPECT_EQ(job.messages[r], 6 * (p - 1));
      EXPECT_EQ(job.bytes[r], 6 * (p - 1) * (16 + 4 + kBlock / 8));
    }
    expect_sound(job);
  }
}

}  // namespace
}  // namespace terse::test::proof
