// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "collective/algorithms.hpp"

namespace terse::test {

/// What a rank sends, without agreements.
struct Sent {
  std::size_t messages = 0;
  std::size_t reductions = 0;  ///< of the transport's own
  std::size_t bytes = 0;       ///< of messages, and the least that reductions of messages can do

  bool operator==(const Sent&) const = default;
};

/// The formulas of docs/algorithms.md, for one tensor and a codec whose messages have a size that depends on
/// their elements alone. They know chunks and segments, and nothing of a schedule.
Sent sent_as_documented(const Algorithm& algorithm, const Problem& problem);

/// Segments of the longest chunk, or of the tensor where ranks do not share it.
std::size_t segments_as_documented(const Algorithm& algorithm, const Problem& problem);

}  // namespace terse::test
