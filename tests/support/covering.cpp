// SPDX-License-Identifier: Apache-2.0
#include "support/covering.hpp"

#include <algorithm>
#include <cstdlib>

namespace terse::test {
namespace {

/// Which pairs of values no row has yet.
class Uncovered {
 public:
  explicit Uncovered(const std::vector<int>& sizes) {
    for (const int size : sizes) {
      first_.push_back(values_);
      values_ += static_cast<std::size_t>(size);
    }
    open_.assign(values_ * values_, 1);
  }

  bool has(std::size_t i, int vi, std::size_t j, int vj) const { return open_[at(i, vi, j, vj)] != 0; }
  void remove(std::size_t i, int vi, std::size_t j, int vj) { open_[at(i, vi, j, vj)] = 0; }
  /// How many the row would cover by this value.
  std::size_t gain(const Row& row, std::size_t k, int value) const {
    std::size_t pairs = 0;
    for (std::size_t j = 0; j < row.size(); ++j) {
      if (j != k && row[j] != kOpen &&
          has(std::min(j, k), j < k ? row[j] : value, std::max(j, k), j < k ? value : row[j]))
        ++pairs;
    }
    return pairs;
  }

 private:
  std::size_t at(std::size_t i, int vi, std::size_t j, int vj) const {
    return (first_[i] + static_cast<std::size_t>(vi)) * values_ + first_[j] + static_cast<std::size_t>(vj);
  }

  std::vector<std::size_t> first_;
  std::size_t values_ = 0;
  std::vector<char> open_;
};

}  // namespace

std::vector<Row> covering_rows(const std::vector<int>& sizes,
                               const std::function<bool(const Row&)>& possible) {
  Uncovered uncovered(sizes);
  std::vector<Row> rows;
  const auto cover_from = [&](std::size_t i, int vi, std::size_t j, int vj) {
    Row row(sizes.size(), kOpen);
    row[i] = vi;
    row[j] = vj;
    if (!possible(row)) return;
    // Every place takes the value that covers most; of equal ones another in each row.
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      if (row[k] != kOpen) continue;
      int best = kOpen;
      std::size_t most = 0;
      for (int n = 0; n < sizes[k]; ++n) {
        const int value = (n + static_cast<int>(rows.size())) % sizes[k];
        const std::size_t pairs = uncovered.gain(row, k, value);
        if (best != kOpen && pairs <= most) continue;
        row[k] = value;
        if (possible(row)) {
          best = value;
          most = pairs;
        }
      }
      row[k] = best;
    }
    for (std::size_t a = 0; a < row.size(); ++a) {
      for (std::size_t b = a + 1; b < row.size(); ++b) uncovered.remove(a, row[a], b, row[b]);
    }
    rows.push_back(row);
  };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    for (std::size_t j = i + 1; j < sizes.size(); ++j) {
      for (int vi = 0; vi < sizes[i]; ++vi) {
        for (int vj = 0; vj < sizes[j]; ++vj) {
          if (uncovered.has(i, vi, j, vj)) cover_from(i, vi, j, vj);
        }
      }
    }
  }
  return rows;
}

bool nightly() { return std::getenv("TERSE_TEST_NIGHTLY") != nullptr; }

}  // namespace terse::test
