// SPDX-License-Identifier: Apache-2.0
//
// direct, of reduce_scatter: the first phase of two_phase by itself. Rank r owns chunk r of the tensor, and
// its output holds that chunk alone.
//
// For each segment: every rank encodes its part of every chunk, with its residual, and sends it to the owner;
// the owner decodes and adds what it gets in the accumulator's type, divides for an average, and rounds once
// to the output. A few segments are under way at once.
//
// Steps: for each of ceil(n / segment) segments, on a rank: P encodings of 1/P of it, P - 1 messages out and
// in, one sum of 1/P. Bytes a rank: (P - 1) / P of the encoded tensor. Determinism: messages are added in
// rank order, whatever order they come in; segments change nothing.
#include "collective/algorithms.hpp"
#include "collective/phases.hpp"

namespace terse::inline v0_1 {

Schedule build_reduce_scatter_pieces(const Problem& problem,
                                     const std::vector<std::vector<Piece>>& segments) {
  PhaseBuilder builder(problem);
  const Phase phase{.group = builder.add_group(Group::of_all(problem.ranks, problem.rank)),
                    .number = builder.add_phase({0, problem.count})};
  const std::size_t begin = two_phase_chunks(problem)[static_cast<std::size_t>(problem.rank)].offset;
  std::vector<Range> shares;
  for (const std::vector<Piece>& segment : segments) {
    shares.assign(static_cast<std::size_t>(problem.ranks), {});
    for (const Piece& piece : segment) shares[static_cast<std::size_t>(piece.owner)] = piece.range;
    builder.begin_segment();
    add_reduce_scatter(builder, phase, shares, problem.op == Op::average ? problem.ranks : 1,
                       {.space = Space::input}, {.space = Space::output, .begin = begin});
  }
  return std::move(builder).finish();
}

Schedule build_reduce_scatter(const Problem& problem) {
  return build_reduce_scatter_pieces(problem,
                                     cut_segments(two_phase_chunks(problem), piece_elements(problem)));
}

}  // namespace terse::inline v0_1
