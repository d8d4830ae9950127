// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "session.hpp"

namespace terse::bench {

/// How long to measure; neither set: what sampling.cpp takes for usual.
struct SamplingPlan {
  std::optional<std::size_t> iterations;  ///< samples of each call
  std::optional<double> seconds;          ///< time for all samples of all calls
  std::size_t few = 9;                    ///< to have as many samples, batches become shorter
  std::size_t most = 100'000;             ///< samples in `seconds`
  bool shaped = false;                    ///< ranks on several hosts, whose links may let short bursts pass

  /// A few samples, in a minute or less, that tell which call to measure by this plan.
  SamplingPlan trial() const;
};

/// A call's samples.
struct Samples {
  std::vector<double> us;  ///< microseconds of a call
  std::size_t batch = 1;   ///< calls in a sample
};

/// Times calls in turn. A sample is a batch of calls back to back after a barrier; its time is the slowest
/// rank's, divided by the calls. `progress` hears how many samples there are and will be. Collective: all
/// ranks decide alike.
std::vector<Samples> sample_in_turn(const Session& session, const SamplingPlan& plan,
                                    const std::vector<std::function<void()>>& calls,
                                    const std::function<void(std::size_t done, std::size_t of)>& progress);

}  // namespace terse::bench
