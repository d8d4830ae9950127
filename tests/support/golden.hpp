// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace terse::test {

/// A file of golden/: what the algorithm gives, step by step from zero residuals.
struct Golden {
  using Matrix = std::vector<std::vector<double>>;
  struct Step {
    Matrix inputs;  ///< [rank][element]; every value is a float
    std::vector<double> average;
    Matrix worker_scales;
    Matrix server_scales;
    Matrix worker_residuals;
    Matrix server_residuals;  ///< [rank][element of the chunk]
  };
  std::string name;
  std::string mode;
  std::size_t block = 0;
  int ranks = 0;
  std::size_t count = 0;
  std::vector<std::pair<std::size_t, std::size_t>> chunks;  ///< [begin, end) of each rank
  std::vector<Step> steps;

  bool padded() const { return mode == "rms-padded"; }
  /// The codec and the algorithm that should meet it.
  std::string codec() const {
    return padded() ? "onebit:deepspeed" : "onebit:block=" + std::to_string(block);
  }
  std::string algorithm() const { return padded() ? "deepspeed" : "two_phase"; }
};

/// All files of golden/ of one mode ("l1-block", or "rms-padded": onebit:deepspeed), sorted by name; throws
/// where there is none.
std::vector<Golden> load_golden(const std::string& mode);

/// The goldens' tolerance: 1e-3 of max(|want|, 1e-3).
inline bool near_golden(double got, double want) {
  return std::abs(got - want) <= 1e-3 * std::fmax(std::abs(want), 1e-3);  // false for NaN
}

}  // namespace terse::test
