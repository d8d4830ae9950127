// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "collective/algorithms.hpp"

namespace terse::test {

/// What docs/algorithms.md says of a call, of the documents' words and not of the builders' code: what its
/// ranks send, without agreements and trailers. Sizes are exact for codecs of a fixed size, and upper bounds
/// for others.
struct Formula {
  std::vector<std::size_t> messages;       ///< by rank
  std::vector<std::size_t> bytes;          ///< by rank, of its messages
  std::vector<std::size_t> reduced_bytes;  ///< of each reduction of the transport's
  std::vector<Range> chunks;               ///< by rank, where ranks own something
};

/// Of any rank's problem; throws std::logic_error for an algorithm whose formula is not written down here.
Formula formula_of(const Algorithm& algorithm, const Problem& problem);

/// The same of the pieces that go again uncompressed, with a problem whose codec is identity.
Formula formula_of_resending(const Algorithm& algorithm, const Problem& problem,
                             const std::vector<Piece>& flagged);

/// What a range has of each tensor that it has anything of.
std::vector<Range> fragments_of(const Problem& problem, const Range& range);

}  // namespace terse::test
