// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "collective/algorithms.hpp"
#include "proof/abstract.hpp"

namespace terse::test::proof {

/// What a schedule of the library's does when the runner runs it. The problem is the one that it was built
/// of.
RankView view_of(const Schedule& schedule, const Problem& problem);

/// Bytes of a message of these elements, without what sealing adds.
std::size_t encoded_bytes(const Problem& problem, const Range& elements);

}  // namespace terse::test::proof
