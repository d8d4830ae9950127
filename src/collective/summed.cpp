// SPDX-License-Identifier: Apache-2.0
//
// summed: plain reductions of encoded tensors, for codecs whose encoded tensors add up.
//
// Such a codec has rounds (codec/rounds.hpp), a plain reduction each. For each segment of the tensor: every
// rank contributes to the first round, the largest magnitude of each block for instance, and the transport
// reduces that; knowing the result, every rank contributes to the next round, the codes for instance; after
// the last round each concludes what the sum is, over the number of ranks for an average. Nothing is encoded
// twice, ranks own nothing, and there is no server residual. A few segments are under way at once.
//
// Steps, for each of ceil(n / segment) segments (of a codec that encodes tensors as a whole, there is one)
// and each round: a contribution and a reduction; then a conclusion. Bytes a rank: the MPI library's affair;
// no algorithm sends less than 2 (P - 1) / P of what a rank contributes to all rounds, and one number more a
// segment, which tells whether it is flagged. Determinism: sums of integers are the same in any order, so
// sum8 and sum4 give the same bits on all ranks, and again on every run; randomk adds floating-point numbers
// in the MPI library's order, which segments may change.
//
// A piece that any rank has flagged is not encoded, and is resent uncompressed, by the two phases. A
// reduction takes no checksums: what the network does to it unseen, nobody finds. A sum of finite values
// beyond the type's range is infinite, as it is for MPI; sparse codecs flag what might add up to that
// (docs/codecs.md).
#include <algorithm>

#include "codec/rounds.hpp"
#include "collective/algorithms.hpp"
#include "collective/phases.hpp"
#include "core/assert.hpp"

namespace terse::inline v0_1 {
namespace {

Reduction reduction_of(const Round& round, DType accumulator) {
  if (round.kind == Round::Kind::max) {
    TERSE_ASSERT(round.addend == Addend::accumulator, "a codec has a round of maxima of bytes", round.addend);
    return max_of(accumulator);
  }
  return round.addend == Addend::int8 ? Reduction::sum_int8 : addends_of(accumulator);
}

}  // namespace

// A stage of a segment begins a segment later than the one before it, and reductions are entered in the order
// of the steps: that leaves time between two rounds of a segment.
Schedule build_summed(const Problem& problem) {
  const std::span<const Round> rounds = rounds_of(*problem.codec)->rounds_in_order();
  static_assert(kMostRounds < PhaseBuilder::kWindow);  // a stage each, and one for the end
  TERSE_ASSERT(
      rounds.size() >= 2 && rounds.size() <= kMostRounds && rounds.front().addend == Addend::accumulator,
      "a codec's rounds are too few, too many, or begin with bytes", rounds.size());
  PhaseBuilder builder(problem);
  const auto group = builder.add_group(Group::of_all(problem.ranks, problem.rank));
  const auto phase = builder.add_phase({0, problem.count});
  const std::size_t most = problem.codec->traits().whole_tensor ? problem.count : segment_elements(problem);
  for (std::size_t at = 0; at < problem.count; at += most) {
    const Range segment{at, std::min(most, problem.count - at)};
    builder.begin_segment();
    const auto messages = [&](std::uint32_t slot, std::size_t number) {
      return Operand{.space = number == 0 ? Space::nothing : Space::message,
                     .channel = kUnsent,
                     .slot = number == 0 ? kNoSlot : slot,
                     .slots = static_cast<std::uint32_t>(number),
                     .elements = segment};
    };
    std::uint32_t first = kNoSlot;  // of the segment, which has one a round
    std::uint32_t reduced = kNoStep;
    for (std::size_t round = 0; round < rounds.size(); ++round) {
      const std::uint32_t slot = builder.add_slots(1, round_bytes(problem, segment, round));
      if (round == 0) first = slot;
      TERSE_ASSERT(slot == first + round, "the slots of a segment's rounds are not one behind the other",
                   slot, first, round);
      const Operand message = messages(slot, 1);
      const std::uint32_t made = builder.add(round,
                                             {.verb = Verb::contribute,
                                              .phase = phase,
                                              .group = group,
                                              .round = static_cast<std::uint8_t>(round),
                                              .in = {.space = Space::input, .elements = segment},
                                              .out = message,
                                              .beside = messages(first, round)},
                                             {{reduced}});
      reduced = builder.add(round,
                            {.verb = Verb::all_reduce,
                             .group = group,
                             .in = message,
                             .out = message,
                             .reduction = reduction_of(rounds[round], accumulator_of(problem.dtype))},
                            {{made}});
    }
    builder.end_with(
        builder.add(rounds.size(),
                    {.verb = Verb::conclude,
                     .phase = phase,
                     .group = group,
                     .in = messages(first, rounds.size()),
                     .out = {.space = Space::output, .elements = segment},
                     .divisor = problem.op == Op::average ? static_cast<double>(problem.ranks) : 1.0},
                    {{reduced}}));
  }
  return std::move(builder).finish();
}

}  // namespace terse::inline v0_1
