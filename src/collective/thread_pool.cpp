// SPDX-License-Identifier: Apache-2.0
#include "collective/thread_pool.hpp"

#include <algorithm>
#include <exception>
#include <string>
#include <terse/error.hpp>

namespace terse::inline v0_1 {

ThreadPool::ThreadPool(std::size_t threads) {
  try {
    for (std::size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { serve(); });
  } catch (const std::exception& error) {
    stop();
    throw Error(ErrorCode::out_of_memory,
                "no " + std::to_string(threads) + " more threads: " + error.what() + ". Lower threads");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    const Lock lock(mutex_);
    ends_ = true;
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::uint64_t ThreadPool::begin_batch(std::size_t tasks) {
  const Lock lock(mutex_);
  tasks_.reserve(tasks_.size() + tasks);
  return next_batch_++;
}

bool ThreadPool::comes_later(const Task& a, const Task& b) noexcept {
  return a.batch != b.batch ? a.batch > b.batch : a.number > b.number;
}

void ThreadPool::submit(Client& client, std::uint64_t batch, std::uint32_t task) {
  {
    const Lock lock(mutex_);
    tasks_.push_back({batch, task, &client});
    std::push_heap(tasks_.begin(), tasks_.end(), comes_later);
  }
  more_.notify_one();
}

void ThreadPool::run(Lock& lock) {
  std::pop_heap(tasks_.begin(), tasks_.end(), comes_later);
  const Task task = tasks_.back();
  tasks_.pop_back();
  lock.unlock();
  task.client->run_task(task.number);
  lock.lock();
  done_.notify_all();
}

void ThreadPool::serve() {
  Lock lock(mutex_);
  for (;;) {
    more_.wait(lock, [&] { return ends_ || !tasks_.empty(); });
    if (ends_) return;
    run(lock);
  }
}

bool ThreadPool::help() {
  Lock lock(mutex_);
  if (tasks_.empty()) return false;
  run(lock);
  return true;
}

}  // namespace terse::inline v0_1
