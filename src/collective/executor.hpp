// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <terse/error.hpp>
#include <vector>

#include "codec/piece.hpp"
#include "collective/binding.hpp"
#include "collective/message_store.hpp"
#include "collective/schedule.hpp"

namespace terse::inline v0_1 {

/// What became of a step of computation.
struct StepResult {
  std::optional<Error> failure{};
  bool remote_failure = false;  ///< the author of a message says that something went wrong
  bool flagged = false;         ///< a piece has to be sent again
  std::uint8_t flags =
      0;  ///< of elements in scratch that could not be computed, as a message would have them
};

struct FinishedStep {
  std::uint32_t step = 0;
  StepResult result{};
};

/// Computes the steps of one schedule after another: those that are ready, in any order that it likes.
class Executor {
 public:
  using Finished = std::vector<FinishedStep>;

  /// `rank`: this one. The store outlives it.
  Executor(MessageStore& store, int rank) : store_(store), rank_(rank) {}
  virtual ~Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Begins a run; what is passed stays until the next. Errors: out_of_memory; nothing has changed then.
  virtual void begin(const Schedule& schedule, const Binding& binding);
  /// Takes over a step that is ready. It is not begun before work().
  virtual void submit(std::uint32_t step) = 0;
  /// Collects steps that have come to their end by themselves; returns whether there were any.
  virtual bool poll(Finished& finished) noexcept = 0;
  /// Computes one step at most, and collects those that others have computed. Returns whether it computed, or
  /// others do.
  virtual bool work(Finished& finished) noexcept = 0;
  /// Begins nothing more: waits for what is being computed, and forgets the rest.
  virtual void settle(Finished& finished) noexcept = 0;
  /// Whether it waits for a device, which nobody else's progress makes faster.
  virtual bool awaits_device() const noexcept { return false; }

  /// A step that waits for one with these flags, and reads what that one should have written: its own message
  /// has them too. Before it is submitted.
  void inherit(std::uint32_t step, std::uint8_t flags) noexcept { inherited_[step] |= flags; }
  /// From now on no step encodes: every message says that something has gone wrong on this rank.
  void poison() noexcept { poisoned_ = true; }
  /// Takes back, to rounding, what a step that encoded has done to the residuals of its phase.
  void undo(std::uint32_t step) const;

 protected:
  const Schedule& schedule() const noexcept { return *schedule_; }
  const Binding& binding() const noexcept { return *binding_; }
  const Codec& codec(const Step& step) const noexcept { return *binding_->codecs[step.codec]; }
  bool poisoned() const noexcept { return poisoned_; }
  std::uint8_t inherited(std::uint32_t step) const noexcept { return inherited_[step]; }
  Pieces pieces() const noexcept { return Pieces(*binding_, store_); }
  EncodeContext context(const Step& step) const noexcept;
  PieceCoder coder(const Step& step) const { return {codec(step), binding_->dtype, context(step)}; }
  /// The messages that a step sums, and what flags there are among them: kPoisoned where one cannot be read
  /// or has a payload of another size than is due.
  std::uint8_t open_all(const Step& step, std::vector<Contents>& messages, StepResult& result,
                        std::optional<std::size_t> due) const;
  /// Where the size of a payload is known, it must be that.
  void require_payload(const Step& step, const Contents& contents, std::size_t due) const;

  MessageStore& store_;
  const int rank_;

 private:
  virtual void do_undo(const Step& step, const Contents& contents,
                       std::span<const Fragment> fragments) const = 0;

  const Schedule* schedule_ = nullptr;
  const Binding* binding_ = nullptr;
  bool poisoned_ = false;
  std::vector<std::uint8_t> inherited_;  // by step
};

}  // namespace terse::inline v0_1
