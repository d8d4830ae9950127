// SPDX-License-Identifier: Apache-2.0
//
// Rows that cover pairs of parameters' values: all pairs that are possible, and in far fewer rows than all
// there are.
#include "support/covering.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace terse::test {
namespace {

using Pair = std::tuple<std::size_t, int, std::size_t, int>;

std::set<Pair> pairs_of(const std::vector<Row>& rows) {
  std::set<Pair> pairs;
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      for (std::size_t j = i + 1; j < row.size(); ++j) pairs.emplace(i, row[i], j, row[j]);
    }
  }
  return pairs;
}

/// All rows that are complete and allowed.
std::vector<Row> product(const std::vector<int>& sizes, const std::function<bool(const Row&)>& allowed) {
  std::vector<Row> rows = {{}};
  for (const int size : sizes) {
    std::vector<Row> longer;
    for (const Row& row : rows) {
      for (int value = 0; value < size; ++value) {
        longer.push_back(row);
        longer.back().push_back(value);
      }
    }
    rows = std::move(longer);
  }
  rows.erase(std::remove_if(rows.begin(), rows.end(), [&](const Row& row) { return !allowed(row); }),
             rows.end());
  return rows;
}

void check(const std::vector<int>& sizes, const std::function<bool(const Row&)>& allowed, std::size_t most) {
  const auto all = product(sizes, allowed);
  const auto possible = [&](const Row& row) {
    return std::any_of(all.begin(), all.end(), [&](const Row& full) {
      for (std::size_t k = 0; k < row.size(); ++k) {
        if (row[k] != kOpen && row[k] != full[k]) return false;
      }
      return true;
    });
  };
  const auto rows = covering_rows(sizes, possible);
  EXPECT_EQ(pairs_of(rows), pairs_of(all));
  for (const Row& row : rows)
    EXPECT_NE(std::find(all.begin(), all.end(), row), all.end()) << "is not allowed";
  EXPECT_LE(rows.size(), most) << "of " << all.size();
  EXPECT_EQ(rows, covering_rows(sizes, possible)) << "not the same twice";
}

TEST(Covering, HasEveryPair) {
  const auto anything = [](const Row&) { return true; };
  check({2, 2, 2, 2}, anything, 7);
  check({7, 5, 4, 3, 2, 2}, anything, 40);
  check({3}, anything, 0);
  check({1, 1}, anything, 1);
}

TEST(Covering, HasEveryPairThatIsPossible) {
  check(
      {6, 4, 4, 2, 3}, [](const Row& r) { return r[0] != 2 || (r[1] != 1 && r[3] == 0); }, 34);
  // two values that may stand together only with one of a third parameter's
  check(
      {4, 4, 4, 2}, [](const Row& r) { return r[0] != r[1] || r[2] == 3; }, 26);
  check(
      {3, 3}, [](const Row&) { return false; }, 0);
}

}  // namespace
}  // namespace terse::test
