// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <terse/types.hpp>

#include "collective/allreduce.hpp"

namespace terse::inline v0_1 {

/// What a trial of one size found.
struct Trial {
  std::size_t bytes;
  double plain_us;
  double compressed_us;
};
/// From how many bytes on compression pays, by straight lines through two trials' times: where they cross; 0
/// where compression won both and gains no more with size, SIZE_MAX where it never wins.
std::size_t break_even(const Trial& small, const Trial& large);

/// From how many bytes on `call`'s algorithm, codec and dtype are faster than the plain reduction on this
/// communicator, by a short trial: both are timed at two sizes, and straight lines are laid through the
/// slowest rank's times. SIZE_MAX where the lines do not cross. Collective; the same answer on all ranks.
std::size_t find_break_even(Transport& transport, const Call& call, Workspace& workspace);

}  // namespace terse::inline v0_1
