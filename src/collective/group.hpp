// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

#include "core/assert.hpp"

namespace terse::inline v0_1 {

/// The ranks that take part in a phase. Its members are numbered in the order in which they are listed, which
/// is the same on all of them.
class Group {
 public:
  /// `ranks` of the transport's; `me`: which member this rank is.
  Group(std::vector<int> ranks, int me) : ranks_(std::move(ranks)), me_(me) {
    TERSE_ASSERT(me >= 0 && me < size(), "a rank is not a member of the group whose phases it builds", me,
                 size());
  }
  /// All ranks, in their own order.
  static Group of_all(int ranks, int me) {
    std::vector<int> all(static_cast<std::size_t>(ranks));
    std::iota(all.begin(), all.end(), 0);
    return {std::move(all), me};
  }

  int size() const noexcept { return static_cast<int>(ranks_.size()); }
  int me() const noexcept { return me_; }
  /// A member's rank.
  int rank(int member) const noexcept { return ranks_[static_cast<std::size_t>(member)]; }
  /// The member that comes `turns` after this one; before it where that is negative.
  int neighbour(int turns) const noexcept { return (me_ + turns + size()) % size(); }

 private:
  std::vector<int> ranks_;
  int me_;
};

}  // namespace terse::inline v0_1
