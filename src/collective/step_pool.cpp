// SPDX-License-Identifier: Apache-2.0
#include "collective/step_pool.hpp"

#include <algorithm>
#include <exception>
#include <string>

#include "collective/runner.hpp"

namespace terse::inline v0_1 {

StepPool::StepPool(std::size_t threads) {
  try {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  } catch (const std::exception& error) {
    stop();
    throw Error(ErrorCode::out_of_memory,
                "no " + std::to_string(threads) + " more threads: " + error.what() + ". Lower threads");
  }
}

StepPool::~StepPool() { stop(); }

void StepPool::stop() {
  {
    const Lock lock(mutex_);
    ends_ = true;
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::uint64_t StepPool::next_order(std::size_t steps) {
  const Lock lock(mutex_);
  tasks_.reserve(tasks_.size() + steps);
  return next_order_++;
}

bool StepPool::comes_later(const Task& a, const Task& b) noexcept {
  return a.order != b.order ? a.order > b.order : a.step > b.step;
}

void StepPool::lend(Runner& runner, std::uint32_t step) {
  {
    const Lock lock(mutex_);
    tasks_.push_back({runner.order_, step, &runner});
    std::push_heap(tasks_.begin(), tasks_.end(), comes_later);
  }
  more_.notify_one();
}

void StepPool::run(Lock& lock) {
  std::pop_heap(tasks_.begin(), tasks_.end(), comes_later);
  const Task task = tasks_.back();
  tasks_.pop_back();
  lock.unlock();
  StepResult result = task.runner->compute(task.step);
  lock.lock();
  task.runner->returned_.emplace_back(task.step, std::move(result));
  done_.notify_all();
}

void StepPool::serve() {
  Lock lock(mutex_);
  for (;;) {
    more_.wait(lock, [&] { return ends_ || !tasks_.empty(); });
    if (ends_) return;
    run(lock);
  }
}

bool StepPool::help() {
  Lock lock(mutex_);
  if (tasks_.empty()) return false;
  run(lock);
  return true;
}

void StepPool::take_back(Runner& runner) {
  const Lock lock(mutex_);
  runner.taken_back_.swap(runner.returned_);
}

void StepPool::wait_for(Runner& runner) {
  Lock lock(mutex_);
  done_.wait(lock, [&] { return !runner.returned_.empty(); });
}

}  // namespace terse::inline v0_1
