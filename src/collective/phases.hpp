// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "collective/algorithms.hpp"
#include "collective/schedule.hpp"

namespace terse::inline v0_1 {

/// Makes a schedule a segment at a time, out of phases that each add their steps.
///
/// The segments of a schedule are pipelined. A step belongs to a stage of its segment, and is put where a
/// rank that never waits would do it: stage s of segment k beside stage 0 of segment k + s. Up to kWindow
/// segments are under way at once; their slots are used again in turn, once all that the earlier segment does
/// with them is over. Steps have provisional numbers until finish().
class PhaseBuilder {
 public:
  static constexpr std::size_t kWindow = 4;   ///< segments under way, if nothing else is said
  static constexpr std::size_t kStages = 16;  ///< at most

  explicit PhaseBuilder(const Problem& problem, std::size_t window = kWindow);

  const Problem& problem() const noexcept { return problem_; }
  std::uint8_t add_group(Group group) { return schedule_.add_group(std::move(group)); }
  std::uint8_t add_phase(const Range& residual) { return schedule_.add_phase(residual); }
  const Group& group(std::uint8_t number) const noexcept { return schedule_.groups()[number]; }
  /// A codec beside the problem's, which is number 0; bindings name them in this order.
  std::uint8_t add_codec(const Codec& codec);
  const Codec& codec(std::uint8_t number) const noexcept { return *codecs_[number]; }

  /// What follows is of the next segment.
  void begin_segment();
  /// A step that waits for others of its segment, or else for the segment's beginning.
  std::uint32_t add(std::size_t stage, const Step& step, std::span<const std::uint32_t> after);
  /// The segment's slots are not used again before this step is over.
  void end_with(std::uint32_t step) { segments_.back().last.push_back(step); }
  /// So many consecutive slots of one size; returns the first. Each segment asks for as many in the same
  /// order.
  std::uint32_t add_slots(std::size_t number, std::size_t bytes);
  /// How large a message of these elements may be.
  std::size_t message_bytes(std::uint8_t codec, const Range& elements) const;

  Schedule finish() &&;

 private:
  struct Draft {
    Step step;
    std::vector<std::uint32_t> after;
    std::size_t position;
  };
  struct Slots {
    std::uint32_t first;
    std::size_t number;
    std::size_t bytes;
  };
  struct Segment {
    std::uint32_t begin = kNoStep;
    std::vector<std::uint32_t> last{};
  };

  const Problem& problem_;
  std::vector<const Codec*> codecs_;
  Schedule schedule_;
  std::vector<Draft> drafts_;
  std::vector<Segment> segments_;
  std::vector<std::vector<Slots>> slots_;  // by segment under way
  std::size_t next_slots_ = 0;             // in the current segment's
  std::uint32_t slot_count_ = 0;
  std::uint32_t join_ = kNoStep;
};

/// What the steps of a phase have in common.
struct Phase {
  std::uint8_t group = 0;    ///< who takes part
  std::uint8_t number = 0;   ///< whose residual it uses
  std::uint8_t channel = 0;  ///< which of the call's tags its messages go under
  std::uint8_t codec = 0;
  std::size_t stage = 0;  ///< in which it begins
};

/// Elements of the tensor, from element `begin` on: in the caller's memory, or in a slot.
struct Elements {
  Space space = Space::input;
  std::size_t begin = 0;
  std::uint32_t slot = kNoSlot;
  std::vector<std::uint32_t> ready{};  ///< the steps after which they are there; none: from the beginning

  Operand at(const Range& range) const noexcept {
    return {.space = space, .slot = slot, .elements = {range.offset - begin, range.count}};
  }
};

/// What each member is to have of a segment, by member: ranges of the tensor, which may be empty.
using Shares = std::span<const Range>;

/// A message of each member, in consecutive slots.
struct Messages {
  std::uint32_t slot = kNoSlot;      ///< of the first member's
  std::uint8_t channel = 0;          ///< which of the call's tags they go under
  std::vector<std::uint32_t> there;  ///< by member: the step after which it is there; kNoStep: there is none

  std::uint32_t slot_of(int member) const noexcept { return slot + static_cast<std::uint32_t>(member); }
};

/// Each member encodes every share of `from` for the member whose it is, and sends it there. Slots are asked
/// for as if no share were empty, so that segments ask for the same ones.
struct Exchange {
  Messages received;                   ///< of the own share, this member's own among them
  std::vector<std::uint32_t> encoded;  ///< by member: the step that encoded its share; kNoStep: it is empty
};
Exchange add_exchange(PhaseBuilder& builder, const Phase& phase, Shares shares, const Elements& from);

/// Encodes elements with the residual of the phase.
std::uint32_t add_encoding(PhaseBuilder& builder, const Phase& phase, const Range& elements,
                           const Elements& from, std::uint32_t slot);

/// The sum of messages of all members that stand for the same elements, over `divisor`: as elements, or in
/// one pass encoded anew with the residual of the phase, in a message that goes under its channel. Receivers
/// of that message will multiply by `factor`. Where a piece is flagged, the sum's own rank takes `undoes`
/// back.
std::uint32_t add_sum(PhaseBuilder& builder, const Phase& phase, const Messages& messages,
                      const Range& elements, double divisor, const Elements& to,
                      std::uint32_t undoes = kNoStep);
std::uint32_t add_reduction(PhaseBuilder& builder, const Phase& phase, const Messages& messages,
                            const Range& elements, double divisor, double factor, std::uint32_t slot);

/// Each member sends all others the message that make_own(slot) adds the step of, where its share is not
/// empty. Receives are posted when the segment begins.
using MakeOwn = std::function<std::uint32_t(std::uint32_t slot)>;
Messages add_broadcasts(PhaseBuilder& builder, const Phase& phase, Shares shares, const MakeOwn& make_own);

/// Reduce-scatter: an exchange, after which each member sums its own share.
struct ReduceScatter {
  Elements sums;                       ///< `to`, once it is there
  std::vector<std::uint32_t> encoded;  ///< as in Exchange
};
ReduceScatter add_reduce_scatter(PhaseBuilder& builder, const Phase& phase, Shares shares, double divisor,
                                 const Elements& from, const Elements& to);
/// All-gather: broadcasts, after which each member decodes all shares, each times `factor`. `after`, by
/// member: the step, if any, that is over before its share is written, and that is taken back where the share
/// is flagged. Returns `to`, once it is there.
Elements add_all_gather(PhaseBuilder& builder, const Phase& phase, Shares shares, const MakeOwn& make_own,
                        double factor, const Elements& to, std::span<const std::uint32_t> after);
/// The same of what each member has of `from`, encoded with the residual of the phase.
Elements add_all_gather(PhaseBuilder& builder, const Phase& phase, Shares shares, const Elements& from,
                        double factor, const Elements& to);

}  // namespace terse::inline v0_1
