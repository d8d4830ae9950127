// SPDX-License-Identifier: Apache-2.0
#include "collective/engine.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>

#include "core/floating_point.hpp"

namespace terse::inline v0_1 {
namespace {

// How the progress thread looks for news: often at first, since much comes soon after something else, then
// seldom, since it takes a core from those who compute.
constexpr int kEagerLooks = 64;
constexpr std::chrono::microseconds kShortest{10};
constexpr std::chrono::microseconds kLongest{100};

}  // namespace

Engine::Engine(Transport& transport, const Options& options) : transport_(transport) {
  if (options.threads > 1) pool_ = std::make_unique<ThreadPool>(options.threads - 1);
  if (options.progress == Progress::thread) {
    try {
      thread_ = std::thread([this] { serve(); });
    } catch (const std::system_error& error) {
      throw Error(ErrorCode::out_of_memory, std::string("no thread for progress: ") + error.what());
    }
  }
}

Engine::~Engine() {
  if (thread_.joinable()) {
    {
      const Lock lock(mutex_);
      ends_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  if (!active_.empty()) give_up(*active_.front());
  if (!transport_.abandoned()) return;
  // messages may still be on their way from and to their scratch
  for (auto& execution : executions_) static_cast<void>(execution.release());
}

bool Engine::give_up(const Execution& execution) noexcept {
  const Lock lock(mutex_);
  if (execution.done()) return false;
  transport_.abandon();
  fail_all(std::make_exception_ptr(Error(
      ErrorCode::communication, "this call was given up before its end: others may wait for this rank")));
  return true;
}

void Engine::fail_all(const std::exception_ptr& error) noexcept {
  for (Execution* execution : active_) execution->fail(error);
  active_.clear();
}

bool Engine::advance_all() noexcept {
  bool computed = false;
  auto collectives = Runner::Collectives::enter;
  for (Execution* execution : active_) {
    computed = execution->advance(collectives) || computed;
    if (execution->wants_collective()) collectives = Runner::Collectives::wait;
  }
  std::erase_if(active_, [](const Execution* execution) { return execution->done(); });
  return computed;
}

bool Engine::any_awaits_device() const noexcept {
  return std::any_of(active_.begin(), active_.end(),
                     [](const Execution* execution) { return execution->awaits_device(); });
}

// An error of the transport is one of all calls that are under way.
bool Engine::progress(Transport::Wait wait) noexcept {
  try {
    transport_.progress(wait);
    return true;
  } catch (...) {
    fail_all(std::current_exception());
    return false;
  }
}

Execution& Engine::start(const Call& call) {
  const Lock lock(mutex_);
  if (free_.empty()) {
    free_.reserve(executions_.size() + 1);
    active_.reserve(executions_.size() + 1);
    executions_.push_back(std::make_unique<Execution>(transport_, schedules_, pool_.get()));
    free_.push_back(executions_.back().get());
  }
  Execution& execution = *free_.back();
  free_.pop_back();
  execution.start(call, call.agree && !call.is_trial ? calls_++ : 0);
  if (!execution.done()) active_.push_back(&execution);
  advance_all();
  changed_.notify_all();
  return execution;
}

bool Engine::test(Execution& execution) {
  if (thread_.joinable()) {
    // the thread may be in the midst of a step, which is nothing to wait for
    const Lock lock(mutex_, std::try_to_lock);
    return lock.owns_lock() && execution.done();
  }
  const Lock lock(mutex_);
  while (!active_.empty() && progress(Transport::Wait::no) && advance_all()) {
  }
  return execution.done();
}

// Under the lock: the caller makes progress itself.
void Engine::wait_for(const Execution& execution) {
  while (!execution.done()) {
    const bool computed = advance_all();
    if (execution.done()) return;  // what else is under way may need ranks that wait for this one
    // a device does not wake who waits in MPI
    const bool looks = computed || any_awaits_device();
    progress(looks ? Transport::Wait::no : Transport::Wait::yes);
    if (looks && !computed) std::this_thread::yield();
  }
}

CallResult Engine::finish(Execution& execution) {
  const Lock lock(mutex_);
  wait_for(execution);
  free_.push_back(&execution);
  return execution.finish();
}

void Engine::drain() {
  const Lock lock(mutex_);
  while (!active_.empty()) wait_for(*active_.front());
}

CallResult Engine::run(const Call& call) {
  drain();
  Call blocking = call;
  blocking.blocks = true;
  return finish(start(blocking));
}

std::size_t Engine::scratch_bytes() const {
  const Lock lock(mutex_);
  std::size_t bytes = 0;
  for (const auto& execution : executions_) bytes += execution->scratch_bytes();
  return bytes;
}

void Engine::serve() {
  // A thread inherits the mode of the one that makes it, traps included: here, of whoever made the
  // communicator. What MPI reduces while this thread makes progress is reduced in the default mode instead.
  const DefaultFloatingPoint mode;
  Lock lock(mutex_);
  int idle = 0;
  while (true) {
    changed_.wait(lock, [&] { return ends_ || !active_.empty(); });
    if (ends_) return;
    idle = progress(Transport::Wait::no) && advance_all() ? 0 : idle + 1;
    lock.unlock();
    if (idle == 0 || idle < kEagerLooks) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::min(kLongest, kShortest * (idle / kEagerLooks)));
    }
    lock.lock();
  }
}

}  // namespace terse::inline v0_1
