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
  std::optional<double> seconds;          ///< time for all samples of both calls
  bool shaped = false;                    ///< ranks on several hosts, whose links may let short bursts pass
};

/// Microseconds of a call, a sample each.
struct PairedSamples {
  std::vector<double> measured;
  std::vector<double> baseline;
  std::size_t measured_batch = 1;  ///< calls in a sample
  std::size_t baseline_batch = 1;
};

/// Times two calls in turn. A sample is a batch of calls back to back after a barrier; its time is the
/// slowest rank's, divided by the calls. `progress` hears how many samples there are and will be. Collective:
/// all ranks decide alike.
PairedSamples sample_in_turn(const Session& session, const SamplingPlan& plan,
                             const std::function<void()>& measured, const std::function<void()>& baseline,
                             const std::function<void(std::size_t done, std::size_t of)>& progress);

}  // namespace terse::bench
