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
// A piece that any rank has flagged is not summed, and goes again exactly, by the two phases: each rank sums
// a share of it. A sum of finite values beyond the type's range is infinite, as it is for MPI; sparse codecs flag
// what might add up to that (docs/codecs.md).
#include <algorithm>

#include "codec/piece.hpp"
#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kWindow = 4;          // segments under way at once; their scratch is reused in turn
constexpr std::uint8_t kToAll = 1;          // as the second phase of two_phase, in which all hear all
constexpr std::size_t kSegmentsBehind = 1;  // a rank encodes the next segment before it sums one

class Builder {
 public:
  explicit Builder(const Problem& problem)
      : problem_(problem), me_(static_cast<std::uint32_t>(problem.rank)) {
    const std::size_t most = problem.codec->traits().whole ? problem.count : segment_elements(problem);
    for (std::size_t at = 0; at < problem.count; at += most) {
      segments_.push_back({.range = {at, std::min(most, problem.count - at)}});
    }
    std::size_t bytes = 0;
    for (const Segment& segment : segments_) bytes = std::max(bytes, message_bytes(segment.range));
    first_slots_.resize(std::min(kWindow, segments_.size()));
    for (std::uint32_t& first : first_slots_) {
      first = schedule_.add_message(bytes);
      for (int r = 1; r < problem.ranks; ++r) schedule_.add_message(bytes);
    }
  }

  Schedule build() && {
    for (std::size_t k = 0; k < segments_.size() + kSegmentsBehind; ++k) {
      if (k < segments_.size()) begin_segment(k);
      if (k >= kSegmentsBehind) end_segment(k - kSegmentsBehind);
    }
    schedule_.seal();
    return std::move(schedule_);
  }

 private:
  struct Segment {
    Range range;
    std::vector<std::uint32_t> there{};  // steps: the messages of all ranks are there
    std::vector<std::uint32_t> last{};   // what must be over before the slots are used again
  };

  std::size_t message_bytes(const Range& range) const {
    std::vector<std::size_t> counts;
    if (problem_.tensors.empty()) counts.push_back(range.count);
    counts.reserve(problem_.tensors.size());
    for_each_fragment(problem_.tensors, range,
                      [&](std::size_t, const Range& own) { counts.push_back(own.count); });
    return PieceCoder(*problem_.codec, problem_.dtype).max_bytes(counts) + problem_.trailer_bytes;
  }

  void begin_segment(std::size_t k) {
    Segment& segment = segments_[k];
    const std::uint32_t first = first_slots_[k % first_slots_.size()];
    std::vector<std::uint32_t> free_slots;
    if (k >= first_slots_.size()) {
      // joins are chained, so that segments begin, and their messages are posted, in order
      std::vector<std::uint32_t> after = segments_[k - first_slots_.size()].last;
      if (join_ != kNoSlot) after.push_back(join_);
      join_ = schedule_.add({.verb = Verb::join}, after);
      free_slots.push_back(join_);
    }
    segment.there.reserve(static_cast<std::size_t>(problem_.ranks));
    segment.last.reserve(static_cast<std::size_t>(problem_.ranks));
    for (int turn = 1; turn < problem_.ranks; ++turn) {
      const int peer = (problem_.rank - turn + problem_.ranks) % problem_.ranks;
      segment.there.push_back(schedule_.add({.verb = Verb::receive,
                                             .channel = kToAll,
                                             .peer = peer,
                                             .message = first + static_cast<std::uint32_t>(peer)},
                                            free_slots));
    }
    const std::uint32_t encoded = schedule_.add(
        {.verb = Verb::encode, .channel = kToAll, .message = first + me_, .elements = segment.range},
        free_slots);
    segment.there.push_back(encoded);
    for (int turn = 1; turn < problem_.ranks; ++turn) {
      const int peer = (problem_.rank + turn) % problem_.ranks;
      segment.last.push_back(schedule_.add(
          {.verb = Verb::send, .channel = kToAll, .peer = peer, .message = first + me_}, {{encoded}}));
    }
  }

  // In place, the output is the input: it has been encoded, since the own message is among those summed.
  void end_segment(std::size_t k) {
    Segment& segment = segments_[k];
    const std::uint32_t first = first_slots_[k % first_slots_.size()];
    segment.last.push_back(schedule_.add({.verb = Verb::sum,
                                          .channel = kToAll,
                                          .peer = 0,
                                          .from = first,
                                          .from_channel = kToAll,
                                          .average = problem_.op == Op::average,
                                          .undo = first + me_,
                                          .elements = segment.range},
                                         segment.there));
  }

  const Problem& problem_;
  std::uint32_t me_;
  std::uint32_t join_ = kNoSlot;
  std::vector<Segment> segments_;
  std::vector<std::uint32_t> first_slots_;  // by segment under way: rank 0's; the others' follow
  Schedule schedule_;
};

}  // namespace

Schedule build_gather(const Problem& problem) { return Builder(problem).build(); }

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
