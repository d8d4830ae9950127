// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <terse/error.hpp>
#include <vector>

#include "collective/binding.hpp"
#include "collective/device_executor.hpp"
#include "collective/host_executor.hpp"
#include "collective/message_store.hpp"
#include "collective/schedule.hpp"
#include "collective/thread_pool.hpp"
#include "core/buffer.hpp"
#include "transport/transport.hpp"

namespace terse::inline v0_1 {

/// Advances one schedule after another: hands what is ready to an executor or to the transport. Computation
/// is done as soon as it can be, the lowest step first; the wire is served in between. Nothing is sent,
/// received or reduced before open_gate().
class Runner {
 public:
  /// The transport, the memory for messages and the pool, where there is one, outlive the runner.
  Runner(Transport& transport, Buffer& messages, ThreadPool* pool)
      : transport_(transport),
        store_(messages, transport.rank()),
        on_host_(store_, transport.rank(), pool),
        on_device_(store_, transport.rank()) {}
  /// Left before its end, it takes the transport with it.
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  /// Begins a schedule. What the binding points to stays in place until the end. Errors: out_of_memory.
  void begin(std::shared_ptr<const Schedule> schedule, const Binding& binding, int first_tag);

  enum class Collectives : std::uint8_t { wait, enter };
  /// Starts what the wire allows, collects what it has done, and does at most one step of computation. The
  /// transport's progress is the caller's affair. Returns whether it computed, or others do.
  bool advance(Collectives collectives);
  /// Whether it waits for a device, which nobody else's progress makes faster.
  bool awaits_device() const noexcept { return executor_->awaits_device(); }
  void open_gate() noexcept { gated_ = false; }
  bool gated() const noexcept { return gated_; }
  bool done() const noexcept { return !schedule_ || finished_ == schedule_->size(); }
  /// Whether it has a reduction of the transport's to enter, now or later.
  bool wants_collective() const noexcept { return collectives_left_ != 0; }
  /// While the gate is closed: takes back, to rounding, what encoding has done to residuals.
  void roll_back();

  std::size_t bytes_sent() const noexcept { return bytes_sent_; }
  /// Pieces whose output is still to be written because a value somewhere was not finite, in the order in
  /// which they were met: the same set on all ranks that end with the same output.
  const std::vector<Piece>& flagged() const noexcept { return flagged_; }
  /// What went wrong on this rank: bytes came that no encoder wrote, or its codec threw.
  const std::optional<Error>& failure() const noexcept { return failure_; }
  /// Whether a message says that something went wrong on the rank that made it. All who decode that message
  /// know.
  bool remote_failure() const noexcept { return remote_failure_; }
  /// Goes no further: nobody computes for it any more.
  void settle();
  /// Whether transfers are under way, which nobody will wait for once it has failed.
  bool has_transfers() const noexcept { return !in_flight_.empty(); }
  /// Before the first step: this rank has failed already. It goes through all steps, since others wait for
  /// its messages, and every message says so.
  void poison(const Error& failure);

 private:
  void make_ready(std::uint32_t step);
  void finish(std::uint32_t step);
  void finish_computed();
  void start_wire(Collectives collectives);
  void start_reduction(std::uint32_t step);
  void collect();

  Transport& transport_;
  MessageStore store_;
  HostExecutor on_host_;
  DeviceExecutor on_device_;
  Executor* executor_ = &on_host_;
  std::shared_ptr<const Schedule> schedule_;
  Binding binding_;
  int first_tag_ = 0;
  bool gated_ = true;
  bool remote_failure_ = false;
  std::size_t finished_ = 0;
  std::size_t bytes_sent_ = 0;
  std::size_t collectives_left_ = 0;
  std::vector<std::uint32_t> waits_;       // by step: prerequisites not yet finished
  std::vector<std::uint8_t> started_;      // by step, of those on the wire
  std::vector<std::uint32_t> ready_wire_;  // transfers that may start
  std::vector<std::uint32_t> starting_;    // those that just do
  std::vector<std::uint32_t> in_flight_;   // transfers that have started
  std::vector<Operation> operations_;      // by step
  std::vector<std::uint32_t> encoded_behind_gate_;
  std::vector<FinishedStep> computed_;  // what an executor has just done
  std::vector<Piece> flagged_;
  std::optional<Error> failure_;
};

}  // namespace terse::inline v0_1
