// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <terse/codec.hpp>
#include <terse/types.hpp>
#include <utility>
#include <vector>

#include "codec/feedback_state.hpp"
#include "collective/group.hpp"
#include "collective/partition.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// What a step does: it reads Step::in and writes Step::out. Those that encode add the residual of their
/// phase to what they encode, and leave in it what the message does not hold. Transfers and reductions are on
/// the wire, a join is nothing; the others are computation.
enum class Verb : std::uint8_t {
  encode,      ///< elements -> message
  extract,     ///< message of a whole tensor -> message of some of its elements, which `beside` names
  reduce,      ///< a message of each member -> message of their sum over `divisor`, encoded anew
  sum,         ///< a message of each member -> their sum over `divisor`
  decode,      ///< message -> elements, each times `factor`
  divide,      ///< output -> output, over `divisor`
  contribute,  ///< elements, and results of earlier rounds `beside` -> message of what is to be reduced
  conclude,    ///< a message of each round's result -> elements over `divisor`
  send,        ///< message -> peer
  receive,     ///< message <- peer
  all_reduce,  ///< plain reduction by the transport: of a message, or of all elements
  join         ///< a point that others wait for
};

constexpr bool is_on_wire(Verb verb) noexcept {
  return verb == Verb::send || verb == Verb::receive || verb == Verb::all_reduce;
}
/// Whether it updates the residual of its phase, so that another step may have to take that back.
constexpr bool encodes(Verb verb) noexcept {
  return verb == Verb::encode || verb == Verb::reduce || verb == Verb::contribute;
}

inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();
inline constexpr std::uint32_t kNoStep = std::numeric_limits<std::uint32_t>::max();
/// The channel of a message that no rank sends.
inline constexpr std::uint8_t kUnsent = std::numeric_limits<std::uint8_t>::max();
/// The phase of a step whose codec leaves nothing out.
inline constexpr std::uint8_t kNoResidual = std::numeric_limits<std::uint8_t>::max();
/// How many codecs a schedule may use.
inline constexpr std::size_t kMostCodecs = 2;

/// Where a step reads or writes.
enum class Space : std::uint8_t {
  nothing,
  input,    ///< the caller's
  output,   ///< the caller's
  scratch,  ///< elements of the tensor's type in a slot
  message   ///< encoded elements in a slot, or in several
};

struct Operand {
  Space space = Space::nothing;
  std::uint8_t channel = 0;      ///< of messages: which of the call's tags they go under
  std::uint32_t slot = kNoSlot;  ///< of scratch and messages: the first one, an index into Schedule::slots
  std::uint32_t slots = 1;       ///< of messages: consecutive ones, by the group's members or by round
  /// Of input, output and scratch: which, counted from its beginning. Of messages: what they stand for,
  /// counted as all ranks do, in the tensors one behind the other.
  Range elements{};
};

/// One thing to do.
struct Step {
  Verb verb = Verb::join;
  std::uint8_t codec = 0;  ///< which of the binding's
  std::uint8_t phase = 0;  ///< whose residual and random numbers it uses
  std::uint8_t group = 0;  ///< which of the schedule's: who takes part
  std::uint8_t round = 0;  ///< of contribute: which of the codec's
  /// Of send: to whom; of receive and decode: who has made the message; a rank.
  int peer = -1;
  Operand in{};
  Operand out{};
  Operand beside{};                ///< what else it reads
  std::uint32_t undoes = kNoStep;  ///< of sum and decode: what to take back where the piece is flagged
  Reduction reduction = Reduction::sum_f32;  ///< of all_reduce
  double divisor = 1;
  double factor = 1;  ///< of decode: see there; of reduce: what the receivers of the message will multiply by
};

/// A list of steps and what each must wait for, over slots that are named but not yet there. Made once, run
/// any number of times. Steps stand in the order in which a rank with nothing to wait for would do them.
class Schedule {
 public:
  static constexpr int kChannels = 2;

  std::uint32_t add(const Step& step, std::span<const std::uint32_t> after);
  std::uint32_t add_slot(std::size_t bytes);  ///< capacity; returns the slot
  std::uint8_t add_group(Group group);
  /// A phase whose residual holds these elements; returns its number.
  std::uint8_t add_phase(const Range& residual);
  /// To be called once, after the last add: checks all steps, see check().
  void seal();

  /// Of a send or receive: the one before it with the same peer and channel, which must start before it,
  /// since that is how messages find each other; of an all_reduce: the one before it. kNoStep for the first.
  std::uint32_t started_after(std::uint32_t i) const noexcept { return started_after_[i]; }
  /// By phase: the elements of its residual on this rank.
  std::span<const Range> residuals() const noexcept { return residuals_; }
  const Group& group(const Step& step) const noexcept { return groups_[step.group]; }
  std::span<const Group> groups() const noexcept { return groups_; }

  std::size_t size() const noexcept { return steps_.size(); }
  const Step& operator[](std::uint32_t i) const noexcept { return steps_[i]; }
  std::span<const Step> steps() const noexcept { return steps_; }
  /// How many steps step i waits for, and which steps wait for it.
  std::uint32_t prerequisites(std::uint32_t i) const noexcept { return prerequisites_[i]; }
  std::span<const std::uint32_t> successors(std::uint32_t i) const noexcept {
    return std::span(successors_).subspan(first_[i], first_[i + 1] - first_[i]);
  }
  /// Offset and size in bytes within the memory of all slots.
  const std::vector<Range>& slots() const noexcept { return slots_; }
  std::size_t slot_bytes() const noexcept { return slots_.empty() ? 0 : slots_.back().end(); }

 private:
  void check(std::uint32_t i) const;
  void check(const Operand& operand, std::uint32_t i) const;

  std::vector<Step> steps_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> edges_;  // (before, after); emptied by seal
  std::vector<std::uint32_t> prerequisites_;
  std::vector<std::uint32_t> first_;
  std::vector<std::uint32_t> successors_;
  std::vector<std::uint32_t> started_after_;
  std::vector<Range> slots_;
  std::vector<Range> residuals_;
  std::vector<Group> groups_;
};

}  // namespace terse::inline v0_1
