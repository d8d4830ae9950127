// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "collective/algorithms.hpp"
#include "collective/schedule.hpp"

namespace terse::inline v0_1 {

/// The schedules of the last problems.
class ScheduleCache {
 public:
  /// The schedule of a problem, made now if it is not one of the last few.
  std::shared_ptr<const Schedule> schedule_for(const Algorithm& algorithm, const Problem& problem);

 private:
  struct Entry {
    const Algorithm* algorithm;
    Problem problem;  // its pointers may dangle: what follows says what they pointed to
    std::string codec;
    std::vector<Range> tensors;
    std::shared_ptr<const Schedule> schedule;
  };
  std::vector<Entry> entries_;  // the last used in front
};

}  // namespace terse::inline v0_1
