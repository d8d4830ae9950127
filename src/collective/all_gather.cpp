// SPDX-License-Identifier: Apache-2.0
//
// direct, of all_gather: the second phase of two_phase by itself. Rank r's input is chunk r of the tensor
// that all ranks end with.
//
// For each segment: every rank encodes its part of its chunk, with its residual, and sends that message to
// all others; everyone decodes all ranks' messages, its own among them. A few segments are under way at once.
//
// Steps: for each of ceil(n / segment) segments, on a rank: one encoding of 1/P of it, P - 1 messages out and
// in, P decodings of 1/P. Bytes a rank: (P - 1) times its own encoded chunk. Determinism: every rank decodes
// the same messages; segments change nothing.
#include "collective/algorithms.hpp"
#include "collective/phases.hpp"

namespace terse::inline v0_1 {

Schedule build_all_gather_pieces(const Problem& problem, const std::vector<std::vector<Piece>>& segments) {
  PhaseBuilder builder(problem);
  const Range chunk = two_phase_chunks(problem)[static_cast<std::size_t>(problem.rank)];
  const Phase phase{.group = builder.add_group(Group::of_all(problem.ranks, problem.rank)),
                    .number = builder.add_phase(chunk),
                    .channel = 1};
  std::vector<Range> shares;
  for (const std::vector<Piece>& segment : segments) {
    shares.assign(static_cast<std::size_t>(problem.ranks), {});
    for (const Piece& piece : segment) shares[static_cast<std::size_t>(piece.owner)] = piece.range;
    builder.begin_segment();
    add_all_gather(builder, phase, shares, {.space = Space::input, .begin = chunk.offset}, 1,
                   {.space = Space::output});
  }
  return std::move(builder).finish();
}

Schedule build_all_gather(const Problem& problem) {
  return build_all_gather_pieces(problem, cut_segments(two_phase_chunks(problem), piece_elements(problem)));
}

}  // namespace terse::inline v0_1
