// SPDX-License-Identifier: Apache-2.0
#include "collective/schedule_cache.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "core/hash.hpp"

namespace terse::inline v0_1 {
namespace {

// Of what tells most problems apart.
std::uint64_t hash_of(const Problem& problem) {
  const std::array<std::uint64_t, 4> numbers = {problem.count, problem.segment_bytes, problem.trailer_bytes,
                                                problem.feedback};
  const std::uint64_t digest = hash(std::as_bytes(std::span(numbers)));
  return hash(std::as_bytes(problem.tensors), hash(std::as_bytes(std::span(problem.codec->spec())), digest));
}

}  // namespace

std::shared_ptr<const Schedule> ScheduleCache::schedule_for(const Algorithm& algorithm,
                                                            const Problem& problem) {
  const std::uint64_t key = hash_of(problem);
  const auto [first, last] = entries_.equal_range(key);
  const auto found = std::find_if(first, last, [&](const auto& known) {
    const Entry& entry = known.second;
    Problem same = entry.problem;
    same.codec = problem.codec;
    same.tensors = entry.tensors;
    same.rows = entry.rows;
    return entry.algorithm == &algorithm && same == problem && entry.codec == problem.codec->spec();
  });
  if (found != last) return found->second.schedule;
  auto made = std::make_shared<const Schedule>(algorithm.build(problem));
  steps_ += made->size();
  if (steps_ > kMostSteps) {
    entries_.clear();
    steps_ = made->size();
  }
  entries_.emplace(key, Entry{&algorithm,
                              problem,
                              problem.codec->spec(),
                              {problem.tensors.begin(), problem.tensors.end()},
                              {problem.rows.begin(), problem.rows.end()},
                              made});
  return made;
}

}  // namespace terse::inline v0_1
