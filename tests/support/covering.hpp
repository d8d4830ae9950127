// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace terse::test {

/// A value's number for each parameter; kOpen where none is chosen yet.
using Row = std::vector<int>;
inline constexpr int kOpen = -1;

/// Pairwise covering of parameters, the k-th of which has sizes[k] values: rows such that any two values of
/// two parameters that can stand in one row at all do so in at least one of these. `possible` says of a row
/// with open places whether it can be completed. The rows depend on the arguments alone.
std::vector<Row> covering_rows(const std::vector<int>& sizes,
                               const std::function<bool(const Row&)>& possible);

/// Whether tests are to go over the full products of their parameters, which takes hours (test.sh --nightly):
/// TERSE_TEST_NIGHTLY is set.
bool nightly();

}  // namespace terse::test
