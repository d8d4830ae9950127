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
// A piece that any rank has flagged is not encoded, and goes again exactly, by the two phases. A reduction
// takes no checksums: what the network does to it unseen, nobody finds. A sum of finite values beyond the
// type's range is infinite, as it is for MPI; sparse codecs flag what might add up to that (docs/codecs.md).
#include <algorithm>

#include "codec/summable.hpp"
#include "collective/algorithms.hpp"

namespace terse::inline v0_1 {
namespace {

constexpr std::size_t kWindow = 4;  // segments under way at once; their scratch is reused in turn

class Builder {
 public:
  explicit Builder(const Problem& problem) : problem_(problem), codec_(*problem.codec->summable()) {
    const std::size_t most = segment_elements(problem);
    for (std::size_t at = 0; at < problem.count; at += most) {
      segments_.push_back({.range = {at, std::min(most, problem.count - at)}});
      make_room_for(segments_.back().range);
    }
  }

  // The order of the reductions, which is that of the steps, leaves time between those of a segment.
  Schedule build() && {
    const std::size_t n = segments_.size();
    for (std::size_t k = 0; k < n + 2; ++k) {
      if (k < n) measure(k);
      if (k >= 1 && k - 1 < n) encode(k - 1);
      if (k >= 2) decode(k - 2);
    }
    schedule_.seal();
    return std::move(schedule_);
  }

 private:
  struct Segment {
    Range range;
    std::uint32_t shared = kNoSlot;
    std::uint32_t addends = kNoSlot;
    std::uint32_t last = kNoSlot;  // the step before which others need not touch the slots
  };

  void make_room_for(const Range& range) {
    std::size_t numbers = 1;  // and whether the segment is flagged
    std::size_t bytes = 0;
    const auto count = [&](std::size_t, const Range& own) {
      numbers += codec_.shared_count(own.count);
      bytes += codec_.addend_bytes(own.count, problem_.dtype);
    };
    if (problem_.tensors.empty()) {
      count(0, range);
    } else {
      for_each_fragment(problem_.tensors, range, count);
    }
    shared_bytes_ = std::max(shared_bytes_, numbers * size_of(accumulator_of(problem_.dtype)));
    addend_bytes_ = std::max(addend_bytes_, bytes);
  }

  void measure(std::size_t k) {
    Segment& segment = segments_[k];
    std::vector<std::uint32_t> free_slots;
    if (k >= kWindow) {
      segment.shared = segments_[k - kWindow].shared;
      segment.addends = segments_[k - kWindow].addends;
      free_slots.push_back(segments_[k - kWindow].last);
    } else {
      segment.shared = schedule_.add_message(shared_bytes_);
      segment.addends = schedule_.add_message(addend_bytes_);
    }
    const std::uint32_t measured = schedule_.add(
        {.verb = Verb::measure, .message = segment.shared, .elements = segment.range}, free_slots);
    segment.last = schedule_.add({.verb = Verb::all_reduce,
                                  .message = segment.shared,
                                  .reduction = max_of(accumulator_of(problem_.dtype))},
                                 {{measured}});
  }

  void encode(std::size_t k) {
    Segment& segment = segments_[k];
    const std::uint32_t encoded = schedule_.add({.verb = Verb::encode_addends,
                                                 .message = segment.addends,
                                                 .shared = segment.shared,
                                                 .elements = segment.range},
                                                {{segment.last}});
    segment.last = schedule_.add(
        {.verb = Verb::all_reduce,
         .message = segment.addends,
         .reduction = codec_.addend() == Addend::int8 ? Reduction::sum_int8
                                                      : addends_of(accumulator_of(problem_.dtype))},
        {{encoded}});
  }

  void decode(std::size_t k) {
    Segment& segment = segments_[k];
    segment.last = schedule_.add({.verb = Verb::decode_addends,
                                  .peer = 0,
                                  .message = segment.addends,
                                  .average = problem_.op == Op::average,
                                  .shared = segment.shared,
                                  .elements = segment.range},
                                 {{segment.last}});
  }

  const Problem& problem_;
  const SummableCodec& codec_;
  std::vector<Segment> segments_;
  std::size_t shared_bytes_ = 0;  // of the largest segment
  std::size_t addend_bytes_ = 0;
  Schedule schedule_;
};

}  // namespace

Schedule build_summed(const Problem& problem) { return Builder(problem).build(); }

}  // namespace terse::inline v0_1
