// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {

/// What things cost, in nanoseconds.
struct Rates {
  struct Cost {
    double each = 0;  ///< whatever the size
    double byte = 0;
  };
  // Steps of computation. Bytes are those of the elements, in the tensor's type.
  Cost measure{};  ///< to find the numbers that ranks share
  Cost encode{};   ///< with feedback, if the call has it
  Cost add{};      ///< to decode a message and add it to a sum; `each` is once a sum
  Cost decode{};
  Cost copy{};  ///< encoded bytes from one message to another, or a division of the output
  // The wire. `each` is the latency of a message. A rank sends on a link at one time what it receives at
  // another.
  Cost within_node{};
  Cost between_nodes{};
  double reduced_byte = 0;  ///< of the transport's own reductions: to add
};

/// How a call is made.
struct Conditions {
  int ranks_per_node = 1;   ///< in rank order
  std::size_t threads = 1;  ///< of a rank that compute
  bool blocks = false;      ///< the transport's own reductions do
  bool checksum = false;    ///< messages have trailers
};

/// What a rank does, or what the busiest would have to: bytes of messages are what CallResult counts, but for
/// the agreement; for codecs whose messages vary in size, an upper bound.
struct RankPrediction {
  double ns = 0;  ///< until its last step is over
  std::size_t messages = 0;
  std::size_t reductions = 0;  ///< of the transport's own
  std::size_t bytes_sent = 0;
  std::size_t bytes_received = 0;
  std::size_t bytes_encoded = 0;  ///< of elements
  std::size_t bytes_decoded = 0;  ///< the same, each time that they are decoded
};
struct Prediction {
  double ns = 0;  ///< until the last rank is done
  std::vector<RankPrediction> ranks;
};

/// Does to the schedules of all ranks what their runners would, on a clock of its own.
///
/// Each rank computes the lowest step that is ready, `threads` at a time, and serves the wire in between. A
/// message moves once both ends have begun; a rank's messages of one link leave it one after the other and
/// reach it one after the other, at the link's rate. A reduction begins when the last rank has entered it,
/// and takes what the better of a ring and recursive doubling would, as if it had the links for itself.
///
/// `problem` is any rank's. Errors: invalid_argument for schedules that wait for each other without an end.
Prediction predict(std::span<const Schedule> schedules, const Problem& problem, const Rates& rates,
                   const Conditions& conditions = {});
/// The same of an algorithm's schedules.
Prediction predict(const Algorithm& algorithm, Problem problem, const Rates& rates,
                   const Conditions& conditions = {});

}  // namespace terse::inline v0_1
