// SPDX-License-Identifier: Apache-2.0
//
// deepspeed: the two phases as DeepSpeed's compressed allreduce has them, for codec onebit:deepspeed.
//
// The tensor is padded with zeros to N elements, the next multiple of 8 P; rank r owns elements [r N / P, (r
// + 1) N / P). Every rank encodes its whole tensor with one scale, and sends each owner the bits of its
// chunk; the owner averages, encodes its chunk with one scale, and sends that to all. Padding takes part in
// scales and residuals. One segment.
//
// Steps: an encoding of N; P - 1 messages out and in; P decode-adds, a division and an encoding of N / P; P -
// 1 messages out and in; P decodings of N / P. Bytes a rank: 2 (P - 1) m(N / P) where m is the size of an
// encoded chunk, a bit an element and one scale. Determinism: as two_phase.
#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {

std::size_t deepspeed_padded(std::size_t count, int ranks) {
  const std::size_t quantum = 8 * static_cast<std::size_t>(ranks);
  return (count + quantum - 1) / quantum * quantum;
}

std::vector<Range> deepspeed_chunks(const Problem& problem) {
  const std::size_t each = problem.count / static_cast<std::size_t>(problem.ranks);
  std::vector<Range> chunks;
  for (std::size_t r = 0; r < static_cast<std::size_t>(problem.ranks); ++r)
    chunks.push_back({r * each, each});
  return chunks;
}

Schedule build_deepspeed(const Problem& problem) {
  const std::vector<Range> chunks = deepspeed_chunks(problem);
  return build_phases(problem, cut_segments(chunks, chunks[0].count),
                      chunks[static_cast<std::size_t>(problem.rank)]);
}

}  // namespace terse::inline v0_1
