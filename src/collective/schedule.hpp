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

namespace terse::inline v0_1 {

/// What a step does. encode, part, decode and divide are computation; send and receive are on the wire.
enum class Verb : std::uint8_t {
  encode,      ///< elements (and residual) -> message
  part,        ///< message -> message of a part of its elements
  decode,      ///< message -> elements
  divide,      ///< elements /= ranks
  send,        ///< message -> peer
  receive,     ///< message <- peer
  all_reduce,  ///< plain sum of the whole input into the output, by the transport
  join         ///< nothing: a point that others wait for
};

/// Where a step's elements lie. `sum` is scratch of the accumulator's type, one slot of piece size per
/// segment in flight; the others are the caller's.
enum class Place : std::uint8_t { input, output, sum };
/// Which residual an encode step uses; worker residuals lie like the input, server residuals like the chunk.
enum class Residual : std::uint8_t { none, worker, server };

inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

/// One thing to do. Messages and sums are named by slot: an index into Schedule::messages, Schedule::sums.
struct Step {
  Verb verb = Verb::join;
  Place place = Place::input;
  Residual residual = Residual::none;
  Into into = Into::overwrite;
  std::uint8_t channel = 0;  ///< which of the call's tags; of encode and decode: that the message goes under
  int peer = -1;             ///< of send: to whom; of receive: from whom; of decode: who encoded it
  std::uint32_t message = kNoSlot;
  std::uint32_t whole = kNoSlot;  ///< of a part: the message of the whole tensor
  bool kept = false;              ///< of an encoding: the message stays here, and its parts are sent
  std::uint32_t sum = kNoSlot;    ///< the slot, where place is sum (or the step passes the sum's flags on)
  std::uint32_t undo = kNoSlot;   ///< of a decode into the output: this rank's own message of the same piece
  Range elements{};               ///< in the tensor
};

/// A list of steps and what each must wait for, over scratch that is named but not yet there. Made once, run
/// any number of times. Steps stand in the order in which a rank with nothing to wait for would do them.
class Schedule {
 public:
  static constexpr int kChannels = 2;

  std::uint32_t add(const Step& step, std::span<const std::uint32_t> after);
  std::uint32_t add_message(std::size_t bytes);  ///< capacity; returns the slot
  std::uint32_t add_sum(std::size_t count);
  /// To be called once, after the last add.
  void seal();

  std::size_t size() const noexcept { return steps_.size(); }
  const Step& operator[](std::uint32_t i) const noexcept { return steps_[i]; }
  std::span<const Step> steps() const noexcept { return steps_; }
  /// How many steps step i waits for, and which steps wait for it.
  std::uint32_t prerequisites(std::uint32_t i) const noexcept { return prerequisites_[i]; }
  std::span<const std::uint32_t> successors(std::uint32_t i) const noexcept {
    return std::span(successors_).subspan(first_[i], first_[i + 1] - first_[i]);
  }
  /// Slots: offset (in bytes, or elements for sums) and size within the scratch.
  const std::vector<Range>& messages() const noexcept { return messages_; }
  const std::vector<Range>& sums() const noexcept { return sums_; }
  std::size_t message_bytes() const noexcept { return messages_.empty() ? 0 : messages_.back().end(); }
  std::size_t sum_count() const noexcept { return sums_.empty() ? 0 : sums_.back().end(); }

 private:
  std::vector<Step> steps_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> edges_;  // (before, after); emptied by seal
  std::vector<std::uint32_t> prerequisites_;
  std::vector<std::uint32_t> first_;
  std::vector<std::uint32_t> successors_;
  std::vector<Range> messages_;
  std::vector<Range> sums_;
};

}  // namespace terse::inline v0_1
