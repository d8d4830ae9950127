// SPDX-License-Identifier: Apache-2.0
#include "collective/schedule_cache.hpp"

#include <algorithm>

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kKept = 16;

}  // namespace

std::shared_ptr<const Schedule> ScheduleCache::schedule_for(const Algorithm& algorithm,
                                                            const Problem& problem) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    Problem same = entry.problem;
    same.codec = problem.codec;
    same.tensors = entry.tensors;
    return entry.algorithm == &algorithm && same == problem && entry.codec == problem.codec->spec();
  });
  if (found != entries_.end()) {
    std::rotate(entries_.begin(), found, found + 1);
    return entries_.front().schedule;
  }
  Entry entry{&algorithm,
              problem,
              problem.codec->spec(),
              {problem.tensors.begin(), problem.tensors.end()},
              std::make_shared<const Schedule>(algorithm.build(problem))};
  if (entries_.size() == kKept) entries_.pop_back();
  return entries_.insert(entries_.begin(), std::move(entry))->schedule;
}

}  // namespace terse::inline v0_1
