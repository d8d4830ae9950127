// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "collective/allreduce.hpp"

namespace terse::inline v0_1 {

/// Advances the calls that are under way on a transport, any number at once. They are started in the same
/// order on all ranks and end in any.
///
/// For one thread at a time; with Progress::thread, a thread of the engine's makes progress beside it, and
/// the transport must bear that two threads take turns.
class Engine {
 public:
  enum class Progress : std::uint8_t { calls, thread };
  struct Options {
    std::size_t threads = 1;  ///< that compute, the caller's own included
    Progress progress = Progress::calls;
  };

  /// The transport outlives it. Errors: out_of_memory.
  Engine(Transport& transport, const Options& options);
  explicit Engine(Transport& transport) : Engine(transport, Options{}) {}
  /// What is still under way takes the transport with it.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// From start to end. Errors: as Execution::finish.
  CallResult run(const Call& call);
  /// Before a call whose reduction may block in MPI: that may wait for ranks that wait for this one in an
  /// earlier call.
  void drain();
  /// Begins a call, which the engine keeps until finish(). Errors: out_of_memory.
  Execution& start(const Call& call);
  /// Does all that can be done without waiting, for all calls; whether this one is over.
  bool test(Execution& execution);
  /// Unless it is over: gives up all that is under way. What that reads and writes is not touched any more,
  /// but for buffers of the transport's own reductions, which cannot be given up; and the transport only
  /// refuses. Returns whether it has come to that.
  bool give_up(const Execution& execution) noexcept;
  /// Waits, and says what the call did. The reference is void from then on.
  CallResult finish(Execution& execution);

  Transport& transport() noexcept { return transport_; }
  std::size_t under_way() const {
    const Lock lock(mutex_);
    return active_.size();
  }
  /// Memory that it keeps for calls to come.
  std::size_t scratch_bytes() const;

 private:
  using Lock = std::unique_lock<std::mutex>;
  bool advance_all() noexcept;
  bool progress(Transport::Wait wait) noexcept;
  bool any_awaits_device() const noexcept;
  void fail_all(const std::exception_ptr& error) noexcept;
  void wait_for(const Execution& execution);
  void serve();

  Transport& transport_;
  ScheduleCache schedules_;
  std::unique_ptr<ThreadPool> pool_;
  std::vector<std::unique_ptr<Execution>> executions_;  // all
  std::vector<Execution*> free_;
  std::vector<Execution*> active_;  // in start order
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool ends_ = false;
  std::uint64_t calls_ = 0;  // with agreement, so that ranks count alike, but for trials
  std::thread thread_;
};

}  // namespace terse::inline v0_1
