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
#include <array>
#include <cmath>
#include <string>

#include "codec/piece.hpp"
#include "collective/algorithms.hpp"
#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kWindow = 4;  // segments under way at once; their scratch is reused in turn
constexpr std::uint8_t kToOwner = 0;
constexpr std::uint8_t kToAll = 1;

// Makes the schedule a segment and a stage at a time; everything it needs to know later is kept per segment.
class Builder {
 public:
  Builder(const Problem& problem, const std::vector<std::vector<Piece>>& segments)
      : problem_(problem), me_(problem.rank), states_(segments.size()) {
    for (std::size_t k = 0; k < segments.size(); ++k) {
      states_[k].parts.resize(static_cast<std::size_t>(problem.ranks));
      for (const Piece& piece : segments[k]) {
        states_[k].parts[static_cast<std::size_t>(piece.owner)].range = piece.range;
        most_bytes_ = std::max(most_bytes_, message_bytes(piece.range));
      }
    }
    const auto ranks = static_cast<std::size_t>(problem.ranks);
    if (problem.codec->traits().whole) {
      whole_ = schedule_.add_message(problem.codec->max_bytes(problem.count, problem.dtype));
    }
    slots_.resize(std::min(kWindow, segments.size()));
    for (Slots& slots : slots_) {
      for (auto* row : {&slots.mine, &slots.theirs, &slots.result}) {
        for (std::size_t r = 0; r < ranks; ++r) {
          // what this rank encodes for itself lies among what comes from the others
          const bool own = row == &slots.theirs && r == static_cast<std::size_t>(me_);
          const bool there = row == &slots.mine && r == static_cast<std::size_t>(me_);
          row->push_back(own || !there ? schedule_.add_message(most_bytes_) : kNoSlot);
        }
      }
      slots.mine[static_cast<std::size_t>(me_)] = at(slots.theirs, me_);
    }
  }

  Schedule build() && {
    // the order a rank that never waits would work in: two segments ahead with encoding, decoding last
    for (std::size_t k = 0; k < states_.size() + 2; ++k) {
      if (k < states_.size()) begin_segment(k);
      if (k >= 1 && k - 1 < states_.size()) reduce_segment(k - 1);
      if (k >= 2) end_segment(k - 2);
    }
    schedule_.seal();
    return std::move(schedule_);
  }

 private:
  struct Slots {
    std::vector<std::uint32_t> mine;    // by owner: what this rank encoded for it
    std::vector<std::uint32_t> theirs;  // by sender: what came for the own piece; consecutive
    std::vector<std::uint32_t> result;  // by owner
  };
  struct Part {
    Range range;
    std::uint32_t encoded = 0;   // step: own message for this owner is ready
    std::uint32_t received = 0;  // step: this rank's message for the own piece is there
    std::uint32_t result = 0;    // step: the owner's result is there
  };
  struct Segment {
    std::vector<Part> parts;          // by rank
    std::vector<std::uint32_t> last;  // what must be over before the slots are used again
  };

  // Starts after the slots are free.
  void begin_segment(std::size_t k) {
    Segment& segment = states_[k];
    Slots& slots = slots_[k % slots_.size()];
    std::vector<std::uint32_t> free_slots;
    if (k >= slots_.size()) {
      // joins are chained, so that segments begin, and their messages are posted, in order
      join_ = schedule_.add({.verb = Verb::join}, with(states_[k - slots_.size()].last, join_));
      free_slots.push_back(join_);
    }
    const bool own = part(segment, me_).range.count != 0;
    for (int turn = 1; turn < problem_.ranks; ++turn) {
      const int peer = (me_ - turn + problem_.ranks) % problem_.ranks;
      Part& from = part(segment, peer);
      if (own) {
        from.received = schedule_.add(
            {.verb = Verb::receive, .channel = kToOwner, .peer = peer, .message = at(slots.theirs, peer)},
            free_slots);
      }
      if (from.range.count != 0) {
        from.result = schedule_.add(
            {.verb = Verb::receive, .channel = kToAll, .peer = peer, .message = at(slots.result, peer)},
            free_slots);
      }
    }
    if (whole_ != kNoSlot) {
      free_slots.push_back(schedule_.add(
          {.verb = Verb::encode, .message = whole_, .kept = true, .elements = {0, problem_.count}},
          free_slots));
    }
    // neighbours first and oneself last, so that no owner is everybody's first
    for (int turn = 1; turn <= problem_.ranks; ++turn) {
      const int owner = (me_ + turn) % problem_.ranks;
      Part& to = part(segment, owner);
      if (to.range.count == 0) continue;
      to.encoded = schedule_.add({.verb = whole_ == kNoSlot ? Verb::encode : Verb::part,
                                  .channel = kToOwner,
                                  .message = at(slots.mine, owner),
                                  .whole = whole_,
                                  .elements = to.range},
                                 free_slots);
      if (owner != me_) {
        segment.last.push_back(schedule_.add(
            {.verb = Verb::send, .channel = kToOwner, .peer = owner, .message = at(slots.mine, owner)},
            {{to.encoded}}));
      }
    }
  }

  // The owner's part.
  void reduce_segment(std::size_t k) {
    Segment& segment = states_[k];
    Slots& slots = slots_[k % slots_.size()];
    Part& own = part(segment, me_);
    if (own.range.count == 0) return;
    std::vector<std::uint32_t> after;
    after.reserve(static_cast<std::size_t>(problem_.ranks));
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      after.push_back(rank == me_ ? own.encoded : part(segment, rank).received);
    }
    own.result = schedule_.add({.verb = Verb::reduce,
                                .channel = kToAll,
                                .message = at(slots.result, me_),
                                .from = slots.theirs[0],
                                .from_channel = kToOwner,
                                .average = averages(problem_),
                                .elements = own.range},
                               after);
    for (int turn = 1; turn < problem_.ranks; ++turn) {
      const int peer = (me_ + turn) % problem_.ranks;
      segment.last.push_back(schedule_.add(
          {.verb = Verb::send, .channel = kToAll, .peer = peer, .message = at(slots.result, me_)},
          {{own.result}}));
    }
  }

  void end_segment(std::size_t k) {
    Segment& segment = states_[k];
    Slots& slots = slots_[k % slots_.size()];
    for (int turn = 0; turn < problem_.ranks; ++turn) {
      const int owner = (me_ - turn + problem_.ranks) % problem_.ranks;
      const Part& from = part(segment, owner);
      if (from.range.count == 0) continue;
      // in place, the output is the input: it must have been encoded
      segment.last.push_back(schedule_.add({.verb = Verb::decode,
                                            .channel = kToAll,
                                            .peer = owner,
                                            .message = at(slots.result, owner),
                                            .undo = at(slots.mine, owner),
                                            .elements = from.range},
                                           {{from.result, from.encoded}}));
    }
  }

  std::size_t message_bytes(const Range& piece) {
    counts_.clear();
    if (problem_.tensors.empty()) counts_.push_back(piece.count);
    for_each_fragment(problem_.tensors, piece,
                      [&](std::size_t, const Range& elements) { counts_.push_back(elements.count); });
    return PieceCoder(*problem_.codec, problem_.dtype).max_bytes(counts_) + problem_.trailer_bytes;
  }

  static Part& part(Segment& segment, int rank) { return segment.parts[static_cast<std::size_t>(rank)]; }
  static std::uint32_t at(const std::vector<std::uint32_t>& slots, int rank) {
    return slots[static_cast<std::size_t>(rank)];
  }
  static std::vector<std::uint32_t> with(std::vector<std::uint32_t> steps, std::uint32_t more) {
    if (more != kNoSlot) steps.push_back(more);
    return steps;
  }
  // A sum without loss is made as MPI makes it; all else is made as an average (onebit.md, step 7).
  static bool averages(const Problem& problem) {
    return problem.op == Op::average || !problem.codec->traits().lossless;
  }

  const Problem& problem_;
  int me_;
  std::size_t most_bytes_ = 0;
  std::vector<std::size_t> counts_;
  std::uint32_t whole_ = kNoSlot;  // message of the whole tensor, where pieces are parts of that
  std::uint32_t join_ = kNoSlot;
  std::vector<Segment> states_;
  std::vector<Slots> slots_;
  Schedule schedule_;
};

}  // namespace

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
  Schedule schedule = build_phases(problem, cut_segments(chunks, piece_elements(problem)));
  schedule.chunk = chunks[static_cast<std::size_t>(problem.rank)];
  return schedule;
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

Schedule build_phases(const Problem& problem, const std::vector<std::vector<Piece>>& segments) {
  return Builder(problem, segments).build();
}

}  // namespace terse::inline v0_1
