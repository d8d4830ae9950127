// SPDX-License-Identifier: Apache-2.0
#include "collective/workspace.hpp"

#include <algorithm>

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kKept = 16;

}  // namespace

const Schedule& Workspace::schedule_for(const Algorithm& algorithm, const Problem& problem) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) {
    Problem same = entry->problem;
    same.codec = problem.codec;
    return entry->algorithm == &algorithm && same == problem && entry->codec == problem.codec->spec();
  });
  if (found != entries_.end()) {
    std::rotate(entries_.begin(), found, found + 1);
  } else {
    auto entry =
        std::make_unique<Entry>(Entry{&algorithm, problem, problem.codec->spec(), algorithm.build(problem)});
    if (entries_.size() == kKept) entries_.pop_back();
    entries_.insert(entries_.begin(), std::move(entry));
  }
  return entries_.front()->schedule;
}

}  // namespace terse::inline v0_1
