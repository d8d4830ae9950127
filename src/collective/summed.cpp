// SPDX-License-Identifier: Apache-2.0
//
// summed: plain reductions of encoded tensors, for codecs whose encoded tensors add up.
//
// For each segment of the tensor: every rank finds out what it has to say about the numbers that all share,
// the largest magnitude of each block for instance; the transport reduces these by MAX; every rank encodes
// the segment with them, with its residual; the transport adds up what all have encoded; everyone decodes the
// sum, over the number of ranks for an average. Sums of codes are exact: nothing is encoded twice, ranks own
// nothing, and there is no server residual. A few segments are under way at once.
//
// Steps, for each of ceil(n / segment) segments: a measurement, a reduction, an encoding, a reduction, a
// decoding. Bytes a rank: the MPI library's affair; no algorithm sends less than 2 (P - 1) / P (a(n) + s(n)),
// of a(n) bytes of addends and s(n) of shared numbers, and one more of these a segment, which tells whether
// it is flagged. Determinism: sums of integers are the same in any order, so sum8 and sum4 give the same bits
// on all ranks, and again on every run; randomk adds floating-point numbers in the MPI library's order, which
// segments may change.
//
// A piece that any rank has flagged is not encoded, and is resent uncompressed, by the two phases. A
// reduction takes no checksums: what the network does to it unseen, nobody finds. A sum of finite values
// beyond the type's range is infinite, as it is for MPI; sparse codecs flag what might add up to that
// (docs/codecs.md).
#include <algorithm>

#include "codec/summable.hpp"
#include "collective/algorithms.hpp"
#include "collective/phases.hpp"

namespace terse::inline v0_1 {
namespace {

struct Sizes {
  std::size_t shared;  // bytes of the numbers that all share, and of whether the segment is flagged
  std::size_t addends;
};

Sizes sizes_of(const Problem& problem, const SummableCodec& codec, const Range& segment) {
  std::size_t numbers = 1;
  std::size_t bytes = 0;
  const auto count = [&](std::size_t, const Range& own) {
    numbers += codec.shared_count(own.count);
    bytes += codec.addend_bytes(own.count, problem.dtype);
  };
  if (problem.tensors.empty()) {
    count(0, segment);
  } else {
    for_each_fragment(problem.tensors, segment, count);
  }
  return {numbers * size_of(accumulator_of(problem.dtype)), bytes};
}

}  // namespace

// A stage of a segment begins a segment later than the one before it, and reductions are entered in the order
// of the steps: that leaves time between the two of a segment.
Schedule build_summed(const Problem& problem) {
  const SummableCodec& codec = *problem.codec->summable();
  const DType accumulator = accumulator_of(problem.dtype);
  PhaseBuilder builder(problem);
  const auto group = builder.add_group(Group::of_all(problem.ranks, problem.rank));
  const auto phase = builder.add_phase({0, problem.count});
  const std::size_t most = segment_elements(problem);
  for (std::size_t at = 0; at < problem.count; at += most) {
    const Range segment{at, std::min(most, problem.count - at)};
    const Sizes sizes = sizes_of(problem, codec, segment);
    builder.begin_segment();
    const auto message = [&](std::size_t bytes) {
      return Operand{.space = Space::message,
                     .channel = kUnsent,
                     .slot = builder.add_slots(1, bytes),
                     .elements = segment};
    };
    const Operand shared = message(sizes.shared);
    const Operand addends = message(sizes.addends);
    const Operand input{.space = Space::input, .elements = segment};
    const auto reduce = [&](std::size_t stage, const Operand& what, Reduction reduction, std::uint32_t made) {
      return builder.add(
          stage, {.verb = Verb::all_reduce, .group = group, .in = what, .out = what, .reduction = reduction},
          {{made}});
    };
    const std::uint32_t measured = builder.add(
        0, {.verb = Verb::measure, .phase = phase, .group = group, .in = input, .out = shared}, {});
    const std::uint32_t agreed = reduce(0, shared, max_of(accumulator), measured);
    const std::uint32_t encoded = builder.add(1,
                                              {.verb = Verb::encode_addends,
                                               .phase = phase,
                                               .group = group,
                                               .in = input,
                                               .out = addends,
                                               .beside = shared},
                                              {{agreed}});
    const std::uint32_t added = reduce(
        1, addends, codec.addend() == Addend::int8 ? Reduction::sum_int8 : addends_of(accumulator), encoded);
    builder.end_with(
        builder.add(2,
                    {.verb = Verb::decode_addends,
                     .phase = phase,
                     .group = group,
                     .in = addends,
                     .out = {.space = Space::output, .elements = segment},
                     .beside = shared,
                     .divisor = problem.op == Op::average ? static_cast<double>(problem.ranks) : 1.0},
                    {{added}}));
  }
  return std::move(builder).finish();
}

}  // namespace terse::inline v0_1
