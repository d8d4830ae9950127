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

#include "collective/partition.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// What a step does. The last four are on the wire, or nothing; the others are computation.
enum class Verb : std::uint8_t {
  encode,          ///< input and worker residual -> message
  part,            ///< message -> message of a part of its elements
  reduce,          ///< messages of all ranks and server residual -> message of their average, or sum
  decode,          ///< message -> output
  sum,             ///< messages of all ranks -> output: their average, or sum
  divide,          ///< output /= ranks
  measure,         ///< input and worker residual -> numbers that ranks are to share
  encode_addends,  ///< input, worker residual and shared numbers -> addends
  decode_addends,  ///< sums of addends and shared numbers -> output
  send,            ///< message -> peer
  receive,         ///< message <- peer
  all_reduce,      ///< plain reduction by the transport: of a message, or the sum of the whole input into the
                   ///< output
  join             ///< nothing: a point that others wait for
};

constexpr bool is_on_wire(Verb verb) noexcept {
  return verb == Verb::send || verb == Verb::receive || verb == Verb::all_reduce;
}

inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

/// One thing to do. Messages are named by slot: an index into Schedule::messages.
struct Step {
  Verb verb = Verb::join;
  std::uint8_t channel = 0;  ///< which of the call's tags; of computation: that the message goes under
  int peer = -1;             ///< of send: to whom; of receive: from whom; of decode: who encoded it;
                             ///< of sum: who is to look after the piece if it goes again exactly
  std::uint32_t message = kNoSlot;
  std::uint32_t whole = kNoSlot;   ///< of a part: the message of the whole tensor
  bool kept = false;               ///< of an encoding: the message stays here, and its parts are sent
  std::uint32_t from = kNoSlot;    ///< of reduce and sum: the first of as many slots as ranks, in their order
  std::uint8_t from_channel = 0;   ///< of reduce and sum: what those messages went under
  bool average = false;            ///< of reduce, sum and decode_addends: divides
  std::uint32_t undo = kNoSlot;    ///< of decode and sum: this rank's own message of the same piece
  std::uint32_t shared = kNoSlot;  ///< of encode_addends and decode_addends: where shared numbers are
  Reduction reduction = Reduction::sum_f32;  ///< of an all_reduce of a message: which
  Range elements{};                          ///< in the tensor, or in the tensors one behind the other
};

/// A list of steps and what each must wait for, over scratch that is named but not yet there. Made once, run
/// any number of times. Steps stand in the order in which a rank with nothing to wait for would do them.
class Schedule {
 public:
  static constexpr int kChannels = 2;

  std::uint32_t add(const Step& step, std::span<const std::uint32_t> after);
  std::uint32_t add_message(std::size_t bytes);  ///< capacity; returns the slot
  /// To be called once, after the last add.
  void seal();

  /// Of a send or receive: the one before it with the same peer and channel, which must start before it,
  /// since that is how messages find each other; of an all_reduce: the one before it. kNoSlot for the first.
  std::uint32_t started_after(std::uint32_t i) const noexcept { return started_after_[i]; }
  /// What the rank owns; empty where ranks own nothing.
  Range chunk{};

  std::size_t size() const noexcept { return steps_.size(); }
  const Step& operator[](std::uint32_t i) const noexcept { return steps_[i]; }
  std::span<const Step> steps() const noexcept { return steps_; }
  /// How many steps step i waits for, and which steps wait for it.
  std::uint32_t prerequisites(std::uint32_t i) const noexcept { return prerequisites_[i]; }
  std::span<const std::uint32_t> successors(std::uint32_t i) const noexcept {
    return std::span(successors_).subspan(first_[i], first_[i + 1] - first_[i]);
  }
  /// Slots: offset and size in bytes within the scratch.
  const std::vector<Range>& messages() const noexcept { return messages_; }
  std::size_t message_bytes() const noexcept { return messages_.empty() ? 0 : messages_.back().end(); }

 private:
  std::vector<Step> steps_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> edges_;  // (before, after); emptied by seal
  std::vector<std::uint32_t> prerequisites_;
  std::vector<std::uint32_t> first_;
  std::vector<std::uint32_t> successors_;
  std::vector<std::uint32_t> started_after_;
  std::vector<Range> messages_;
};

}  // namespace terse::inline v0_1
