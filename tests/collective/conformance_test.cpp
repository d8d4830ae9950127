// SPDX-License-Identifier: Apache-2.0
//
// Every row of the tables with every other: codecs x algorithms x dtypes x ranks x counts x op x feedback x
// in place: each pair of two of these, as far as it is allowed, and nightly the whole product. check_call
// says what is expected of each call: the serial model in float64 (or == where sums are exact), the
// identities of error feedback, the same bits on all ranks, the bytes on the wire. A new row is tested at
// once.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "codec/rounds.hpp"
#include "support/checks.hpp"
#include "support/codec_reference.hpp"
#include "support/covering.hpp"
#include "support/exact.hpp"
#include "support/rig.hpp"
#include "support/thread_transport.hpp"

namespace terse::test {
namespace {

constexpr auto kUnlimited = std::numeric_limits<std::size_t>::max();

bool is_lossy(const Rig& rig) { return rig.algorithm().compresses && !rig.codec()->traits().lossless; }

constexpr int kRanks[] = {1, 2, 3, 4, 5, 7, 8};
constexpr Op kOps[] = {Op::average, Op::sum};

/// Counts of elements around the boundaries of blocks and chunks; those that a codec with large blocks leaves
/// to smaller ones, and what another stands for, are none.
std::optional<std::size_t> count_of(const Codec& codec, int ranks, std::size_t k) {
  constexpr std::size_t kPlain[] = {0, 1, 2, 7, 8, 9, 1009};
  if (k < std::size(kPlain)) return kPlain[k];
  const std::size_t block = codec.traits().block;
  if (block > 64) return {};
  const auto parties = static_cast<std::size_t>(ranks);
  const std::size_t counts[] = {block - 1,           block,          block + 1, parties * block,
                                parties * block + 1, 8 * parties - 1};
  return counts[k - std::size(kPlain)];
}
constexpr int kCounts = 13;

/// Of a codec's examples, for algorithms that do not encode.
std::string first_example_of(const Codec& codec) {
  for (const CodecEntry& row : codecs()) {
    if (row.name == codec.name()) return row.examples.front();
  }
  return {};
}

/// The tables' rows, and which go together.
class Space {
 public:
  enum Place : std::size_t { codec, algorithm, dtype, feedback, ranks, count, op, in_place, places };

  Space() : specs_(all_specs()) {
    for (const std::string& spec : specs_) codecs_.push_back(make_codec(spec));
    for (const Algorithm& row : algorithm_table()) algorithms_.push_back(&row);
    for (std::size_t c = 0; c < specs_.size(); ++c) {
      for (const Algorithm* a : algorithms_) {
        for (const DType d : kAllDTypes) {
          for (const bool f : {false, true}) {
            const Setting pair{
                .dtype = d, .codec = specs_[c], .algorithm = std::string(a->name), .feedback = f};
            const bool once = a->compresses || specs_[c] == first_example_of(*codecs_[c]);
            together_.push_back(once && refusal(pair).empty());
          }
        }
      }
    }
  }

  std::vector<int> sizes() const {
    return {static_cast<int>(specs_.size()),
            static_cast<int>(algorithms_.size()),
            static_cast<int>(std::size(kAllDTypes)),
            2,
            static_cast<int>(std::size(kRanks)),
            kCounts,
            2,
            2};
  }

  bool possible(const Row& row) const {
    return any(row, codec, specs_.size(), [&](std::size_t c) {
      if (row[count] != kOpen && !count_of(*codecs_[c], 1, static_cast<std::size_t>(row[count])))
        return false;
      return any(row, algorithm, algorithms_.size(), [&](std::size_t a) {
        if (row[ranks] != kOpen && !on_ranks(c, a, kRanks[row[ranks]])) return false;
        return any(row, dtype, std::size(kAllDTypes), [&](std::size_t d) {
          return any(row, feedback, 2, [&](std::size_t f) {
            return together_[((c * algorithms_.size() + a) * std::size(kAllDTypes) + d) * 2 + f];
          });
        });
      });
    });
  }

  Setting setting(const Row& row) const {
    const auto& codec_of_row = *codecs_[static_cast<std::size_t>(row[codec])];
    Setting s{.ranks = kRanks[row[ranks]],
              .dtype = kAllDTypes[row[dtype]],
              .op = kOps[row[op]],
              .codec = specs_[static_cast<std::size_t>(row[codec])],
              .algorithm = std::string(algorithms_[static_cast<std::size_t>(row[algorithm])]->name),
              .feedback = row[feedback] != 0,
              .in_place = row[in_place] != 0};
    s.count = *count_of(codec_of_row, s.ranks, static_cast<std::size_t>(row[count]));
    return s;
  }

 private:
  template <class Test>
  static bool any(const Row& row, Place place, std::size_t size, Test&& test) {
    if (row[place] != kOpen) return test(static_cast<std::size_t>(row[place]));
    for (std::size_t value = 0; value < size; ++value) {
      if (test(value)) return true;
    }
    return false;
  }
  bool on_ranks(std::size_t c, std::size_t a, int number) const {
    const auto most = rounds_of(*codecs_[c]) ? rounds_of(*codecs_[c])->most_ranks() : kUnlimited;
    return algorithms_[a]->codecs != Algorithm::For::summable || static_cast<std::size_t>(number) <= most;
  }

  std::vector<std::string> specs_;
  std::vector<std::shared_ptr<const Codec>> codecs_;
  std::vector<const Algorithm*> algorithms_;
  std::vector<bool> together_;
};

/// All rows that are possible.
std::vector<Row> product(const Space& space) {
  std::vector<Row> rows;
  Row row(Space::places, kOpen);
  const std::vector<int> sizes = space.sizes();
  const std::function<void(std::size_t)> fill = [&](std::size_t k) {
    if (!space.possible(row)) return;
    if (k == row.size()) return rows.push_back(row);
    for (row[k] = 0; row[k] < sizes[k]; ++row[k]) fill(k + 1);
    row[k] = kOpen;
  };
  fill(0);
  return rows;
}

/// Rows that cover each pair, and each codec, algorithm, dtype and feedback that go together at least once.
std::vector<Row> covering(const Space& space) {
  const std::vector<int> sizes = space.sizes();
  auto rows = covering_rows(sizes, [&](const Row& row) { return space.possible(row); });
  std::set<Row> seen;
  for (const Row& row : rows) seen.emplace(row.begin(), row.begin() + Space::ranks);
  Row row(Space::places, kOpen);
  const std::function<void(std::size_t)> fill = [&](std::size_t k) {
    if (!space.possible(row)) return;
    if (k < Space::ranks) {
      for (row[k] = 0; row[k] < sizes[k]; ++row[k]) fill(k + 1);
      row[k] = kOpen;
    } else if (seen.emplace(row.begin(), row.begin() + Space::ranks).second) {
      Row full = row;
      for (; k < full.size(); ++k) {  // another value of each in each row
        const auto turn = static_cast<int>(rows.size() / (k == Space::in_place ? 2 : 1));
        for (int n = 0; n == 0 || !space.possible(full); ++n) full[k] = (turn + n) % sizes[k];
      }
      rows.push_back(full);
    }
  };
  fill(0);
  return rows;
}

TEST(Conformance, EveryRowWithEveryOther) {
  const Space space;
  const std::vector<Row> rows = nightly() ? product(space) : covering(space);
  EXPECT_GE(rows.size(), nightly() ? 15000u : 500u);
  std::map<std::string, int> by_pair;
  for (std::uint64_t turn = 1; turn <= rows.size(); ++turn) {
    if (kSanitized && turn % 3 != 0) continue;  // they look for something else than wrong results
    Setting setting = space.setting(rows[turn - 1]);
    setting.segment_bytes = turn % 3 == 0 ? 1 : 1000 * (turn % 3);
    setting.checksum = turn % 4 == 0;
    setting.offset = turn % 3;
    setting.style = style_of(turn / 3);
    if (turn % 7 < 3 && setting.dtype != DType::f64) setting.residual = ResidualType::bf16;
    Rig rig(setting);
    SCOPED_TRACE(text_of(setting));
    for (std::uint64_t step = 1; step <= 2; ++step) {
      const auto inputs =
          is_lossy(rig) ? normal_inputs(rig, turn + step) : exact_inputs(setting, turn + step);
      check_call(rig, inputs, {.seed = turn});
      if (HasFatalFailure()) return;
    }
    ++by_pair[std::string(rig.codec()->name()) + " by " + setting.algorithm];
  }
  RecordProperty("rows", static_cast<int>(rows.size()));
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
