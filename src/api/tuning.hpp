// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <terse/types.hpp>

#include "collective/allreduce.hpp"

namespace terse::inline v0_1 {

/// From how many bytes on `call`'s algorithm, codec and dtype are faster than the plain reduction on this
/// communicator, by a short trial: both are timed at two sizes, and straight lines are laid through the
/// slowest rank's times. SIZE_MAX where the lines do not cross. Collective; the same answer on all ranks.
std::size_t find_break_even(Transport& transport, const Call& call, Workspace& workspace);

}  // namespace terse::inline v0_1
