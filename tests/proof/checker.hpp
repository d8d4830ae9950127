// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "proof/abstract.hpp"

namespace terse::test::proof {

/// Reads the schedules of all ranks of a call at once, and shows of every run that MPI allows:
///   - sends and receives match in peer, tag, order and size, and no message is left;
///   - no rank waits for ever, even if a send is over only once its receive has begun, and a reduction by
///     the transport blocks the rank that is in it;
///   - no slot is read before it is written, or written while it may still be read, and likewise elements
///     of input and output, which may be the same memory, and of residuals;
///   - each residual is updated once;
///   - each output element is written once, and is the sum of all ranks' inputs, each once, in the stated
///     order;
///   - a rank sends as many messages and bytes as the documents say.
///
/// Returns a sentence for each violation, a few at the most: what a later check would find because of an
/// earlier violation is not told. Takes time in proportion to the steps, but for a set of bits for each two
/// of a rank's steps.
std::vector<std::string> violations_of(const Job& job);

}  // namespace terse::test::proof
