// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "collective/algorithms.hpp"
#include "collective/schedule.hpp"
#include "core/buffer.hpp"

namespace terse::inline v0_1 {

/// What is kept between calls: scratch, grown when needed, and the schedules of the last problems.
class Workspace {
 public:
  Buffer messages;
  Buffer sums;
  Buffer padded_in;
  Buffer padded_out;

  /// Leaves the scratch to the end of the process: for after Transport::abandon().
  void leak() noexcept {
    messages.leak();
    sums.leak();
  }

  /// The schedule of a problem, made now if it is not one of the last few. Stays valid until the next call.
  const Schedule& schedule_for(const Algorithm& algorithm, const Problem& problem);

 private:
  struct Entry {
    const Algorithm* algorithm;
    Problem problem;  // its codec pointer may dangle: the spec says which codec it was
    std::string codec;
    Schedule schedule;
  };
  std::vector<std::unique_ptr<Entry>> entries_;  // the last used in front
};

}  // namespace terse::inline v0_1
