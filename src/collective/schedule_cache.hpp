// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "collective/algorithms.hpp"
#include "collective/schedule.hpp"

namespace terse::inline v0_1 {

/// The schedules of earlier problems: those of a training step come again and again.
class ScheduleCache {
 public:
  /// Steps of all schedules that are kept, some 150 bytes each: when there are more, all but the new one are
  /// forgotten.
  static constexpr std::size_t kMostSteps = std::size_t{1} << 18;

  /// The schedule of a problem, made now if it is not kept.
  std::shared_ptr<const Schedule> schedule_for(const Algorithm& algorithm, const Problem& problem);

 private:
  struct Entry {
    const Algorithm* algorithm;
    Problem problem;  // its pointers may dangle: what follows says what they pointed to
    std::string codec;
    std::vector<Range> tensors;
    std::vector<std::size_t> rows;
    std::shared_ptr<const Schedule> schedule;
  };
  std::unordered_multimap<std::uint64_t, Entry> entries_;  // by hash
  std::size_t steps_ = 0;
};

}  // namespace terse::inline v0_1
