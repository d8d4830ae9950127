// SPDX-License-Identifier: Apache-2.0
//
// gather: all-gather of encoded tensors, which every rank sums by itself.
//
// For each segment of the tensor: every rank encodes it, with its residual, and sends the message to all
// others; everyone decodes all ranks' messages, adds them up in the accumulator's type, divides for an
// average, and rounds once to the output. Nothing is encoded twice, so ranks own nothing, there is no server
// residual, and a sum is the sum of what was decoded. A codec that encodes a tensor only as a whole has all
// of it in one segment. A few segments are under way at once.
//
// Steps, for each of ceil(n / segment) segments: an encoding of it; P - 1 messages out and in; a sum of P
// messages. Bytes a rank: (P - 1) m(n) where m is the size of the encoded tensor; that is P / 2 times what
// two_phase sends, so it is for few ranks, and for sparse codecs, whose sums are not as sparse as what went
// into them. Determinism: messages are added in rank order, whatever order they come in, on every rank alike:
// the same bits on all ranks, and again on every run; segments change nothing.
//
// A piece that any rank has flagged is not summed, and is resent uncompressed, by the two phases: each rank
// sums a share of it. A sum of finite values beyond the type's range is infinite, as it is for MPI; sparse
// codecs flag what might add up to that (docs/codecs.md).
#include <algorithm>

#include "collective/algorithms.hpp"
#include "collective/phases.hpp"

namespace terse::inline v0_1 {

Schedule build_gather(const Problem& problem) {
  PhaseBuilder builder(problem);
  const Phase phase{.group = builder.add_group(Group::of_all(problem.ranks, problem.rank)),
                    .number = builder.add_phase({0, problem.count}),
                    .channel = 1};  // as the second phase of two_phase, in which all hear all
  const std::size_t most = problem.codec->traits().whole_tensor ? problem.count : segment_elements(problem);
  std::vector<Range> shares;
  for (std::size_t at = 0; at < problem.count; at += most) {
    const Range segment{at, std::min(most, problem.count - at)};
    shares.assign(static_cast<std::size_t>(problem.ranks), segment);  // each message stands for all of it
    builder.begin_segment();
    std::uint32_t encoded = kNoStep;
    const Messages messages = add_broadcasts(builder, phase, shares, [&](std::uint32_t slot) {
      return encoded = add_encoding(builder, phase, segment, {.space = Space::input}, slot);
    });
    // in place, the output is the input: it has been encoded, since the own message is among those summed
    add_sum(builder, phase, messages, segment, problem.op == Op::average ? problem.ranks : 1,
            {.space = Space::output}, encoded);
  }
  return std::move(builder).finish();
}

Schedule build_gather_pieces(const Problem& problem, const std::vector<std::vector<Piece>>& segments) {
  std::vector<std::vector<Piece>> shared;
  for (const std::vector<Piece>& segment : segments) {
    for (const Piece& piece : segment) {
      std::vector<Range> chunks = deal_chunks(piece.range.count, 1, problem.ranks);
      for (Range& chunk : chunks) chunk.offset += piece.range.offset;
      const auto cut = cut_segments(chunks, piece_elements(problem));
      shared.insert(shared.end(), cut.begin(), cut.end());
    }
  }
  return build_phases(problem, shared);
}

}  // namespace terse::inline v0_1
