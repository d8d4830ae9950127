// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <terse/communicator.hpp>
#include <tuple>
#include <utility>
#include <vector>

#include "interpose/settings.hpp"

namespace terse::interpose {

/// What became of the calls that one rule took at one place of the program, on this rank. Times leave out
/// calls that no later one is like: those that made a residual. All of it is in whole numbers, since a call
/// is accounted for in the program's floating-point mode, whose flags and traps are its own.
struct Entry {
  std::uint64_t calls = 0;
  std::uint64_t compressed = 0;
  std::uint64_t warm_up = 0;   ///< exact: the rule's `after`
  std::uint64_t sampled = 0;   ///< exact, to be compared with
  std::uint64_t compared = 0;  ///< of those: timed
  std::uint64_t slower = 0;    ///< exact: a trial said that compression does not pay
  /// Exact: a lossless codec, too small a tensor, device memory or buffers that overlap on some rank.
  std::uint64_t other_exact = 0;
  std::uint64_t non_finite = 0;      ///< compressed but for values that were not finite
  std::uint64_t elements_again = 0;  ///< elements around those, which were resent uncompressed
  std::uint64_t fresh = 0;           ///< with feedback, but no residual to add
  std::uint64_t started_over = 0;    ///< ranks had different residuals
  std::uint64_t bytes_before = 0;    ///< what plain MPI would have sent at the least
  std::uint64_t bytes_after = 0;     ///< what was sent
  std::uint64_t timed_bytes = 0;     ///< of bytes_before: of the compressed calls in `nanoseconds`
  std::uint64_t nanoseconds = 0;
  std::uint64_t sampled_bytes = 0;
  std::uint64_t sampled_nanoseconds = 0;
};

/// A place of the program: "libtorch_cpu.so+0x1234", with the function where its name is known.
std::string site_name(const void* site);

/// All entries of this rank. Not thread-safe.
class Tally {
 public:
  /// `bytes` of the tensor: calls of a size are compared with each other.
  void add(std::size_t rule, const void* site, std::uint64_t bytes, const Entry& more);
  nlohmann::ordered_json to_json(const Settings& settings,
                                 const std::map<std::size_t, double>& residual_squares) const;

 private:
  std::map<std::tuple<std::size_t, const void*, int>, Entry> entries_;  // int: the bytes' power of two
};

/// The report of a whole run, of all ranks' tallies: counts are of the rank that has most, bytes are sums,
/// times those of the slowest rank. No locale of the program's has a part in it, nor in its words.
nlohmann::ordered_json merge(const std::vector<nlohmann::ordered_json>& of_ranks, const Settings& settings);
/// The same in words.
std::string in_words(const nlohmann::ordered_json& report);

}  // namespace terse::interpose
