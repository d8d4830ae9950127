// SPDX-License-Identifier: Apache-2.0
//
// two_phase: compressed exchange, then compressed all-gather, with error feedback in both phases.
//
// Rank r owns chunk r of the tensor. For each segment: every rank encodes its part of every chunk and sends
// it to the owner; the owner decodes and adds what it gets, averages, encodes the result with its server
// residual and sends it to all; everyone decodes. A few segments are under way at once, so that the wire and
// the codec work side by side.
//
// Several tensors are dealt out as one: chunks and segments run over their blocks, of which none spans two.
//
// Steps: for each of ceil(n / segment) segments, on a rank: P encodings of 1/P of it, P - 1 messages out and
// in; one reduction of 1/P; P - 1 messages out and in; P decodings of 1/P.
// Bytes a rank: (P - 1) (m(n / P) + m(own chunk)) where m is the size of an encoded chunk: 2 (P - 1) / P of
// the encoded tensor. Determinism: sums are added in rank order, whatever order messages come in; every rank
// decodes the owner's one message. The same bits on all ranks, and again on every run; segments change
// nothing.
#include <algorithm>
#include <cmath>

#include "collective/algorithms.hpp"
#include "collective/phases.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::uint8_t kToOwner = 0;  // channels
constexpr std::uint8_t kToAll = 1;

// A sum without loss is made as MPI makes it; all else is made as an average, and multiplied at the end
// (onebit.md, step 7).
bool averages(const Problem& problem) {
  return problem.op == Op::average || !problem.codec->traits().lossless;
}

}  // namespace

Schedule build_phases(const Problem& problem, const std::vector<std::vector<Piece>>& segments,
                      const Range& chunk) {
  PhaseBuilder builder(problem);
  const auto all = builder.add_group(Group::of_all(problem.ranks, problem.rank));
  const Phase to_owner{
      .group = all, .number = builder.add_phase({0, problem.count}), .channel = kToOwner, .stage = 0};
  const Phase to_all{.group = all, .number = builder.add_phase(chunk), .channel = kToAll, .stage = 1};
  const double divisor = averages(problem) ? problem.ranks : 1;
  const double factor = problem.op == Op::sum && averages(problem) ? problem.ranks : 1;
  const auto me = static_cast<std::size_t>(problem.rank);
  std::vector<Range> shares;
  for (const std::vector<Piece>& segment : segments) {
    shares.assign(static_cast<std::size_t>(problem.ranks), {});
    for (const Piece& piece : segment) shares[static_cast<std::size_t>(piece.owner)] = piece.range;
    builder.begin_segment();
    // a reduce-scatter whose sums are encoded where they are made, then an all-gather of these
    const Exchange exchange = add_exchange(builder, to_owner, shares, {.space = Space::input});
    const auto reduce = [&](std::uint32_t slot) {
      return add_reduction(builder, to_all, exchange.received, shares[me], divisor, factor, slot);
    };
    add_all_gather(builder, to_all, shares, reduce, factor, {.space = Space::output}, exchange.encoded);
  }
  return std::move(builder).finish();
}

Schedule build_phases(const Problem& problem, const std::vector<std::vector<Piece>>& segments) {
  return build_phases(problem, segments, {});
}

std::size_t piece_elements(const Problem& problem) {
  const std::size_t block = problem.codec->traits().block;
  const std::size_t wanted =
      problem.segment_bytes / size_of(problem.dtype) / static_cast<std::size_t>(problem.ranks);
  return std::max(block, wanted / block * block);
}

std::size_t segment_elements(const Problem& problem) {
  const std::size_t block = problem.codec->traits().block;
  return std::max(block, problem.segment_bytes / size_of(problem.dtype) / block * block);
}

std::vector<Range> two_phase_chunks(const Problem& problem) {
  return deal_chunks(problem.count, problem.codec->traits().block, problem.ranks);
}

Schedule build_two_phase(const Problem& problem) {
  const std::vector<Range> chunks = two_phase_chunks(problem);
  return build_phases(problem, cut_segments(chunks, piece_elements(problem)),
                      chunks[static_cast<std::size_t>(problem.rank)]);
}

// A segment costs some time whatever its size, and the first and the last segment are not hidden behind
// others: n / s * each + s * byte is least at s = sqrt(n * each / byte). The costs are what a core of a few
// years ago takes, messages by TCP at 8 Gbit/s, or a GPU, where kernels and copies wait for the host and for
// each other; the root makes little of a wrong one.
std::size_t model_segment_bytes(const Codec& codec, std::size_t count, DType dtype, int ranks,
                                Memory memory) {
  const DefaultFloatingPoint mode;
  constexpr std::size_t kUnit = 4096;
  if (count == 0) return kUnit;
  const auto bytes = static_cast<double>(count * size_of(dtype));
  const double share = static_cast<double>(codec.max_bytes(count, dtype)) / bytes;
  const bool on_host = memory == Memory::host;
  const double each_ns = on_host ? 15e3 + 30e3 * (ranks - 1) : 100e3 * ranks;  // steps and messages
  const double byte_ns = on_host ? 0.4 + share : 0.01;  // to encode, reduce and decode; and to send
  const double best = std::sqrt(bytes * each_ns / byte_ns);
  return std::max(kUnit, static_cast<std::size_t>(best) / kUnit * kUnit);
}

}  // namespace terse::inline v0_1
