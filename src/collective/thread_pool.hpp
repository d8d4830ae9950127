// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace terse::inline v0_1 {

/// Threads that do tasks beside the threads that hand them in. Tasks that are handed in at one time touch
/// different memory, so results do not depend on who does what.
class ThreadPool {
 public:
  /// Whoever hands tasks in. It numbers them, and keeps what comes of them.
  class Client {
   public:
    /// Called by any thread.
    virtual void run_task(std::uint32_t task) noexcept = 0;

   protected:
    ~Client() = default;
  };

  /// Errors: out_of_memory where the system gives no threads.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Where a batch of that many tasks stands among all batches; makes room for them. Errors: std::bad_alloc.
  std::uint64_t begin_batch(std::size_t tasks);
  /// Hands a task in. Those of the earliest batch are done first, and of these the one with the lowest
  /// number.
  void submit(Client& client, std::uint64_t batch, std::uint32_t task);
  /// The caller does one task, if there is any.
  bool help();
  /// Waits until a condition holds, which is looked at again whenever a task has been done.
  template <class Condition>
  void wait_until(Condition&& holds) {
    Lock lock(mutex_);
    done_.wait(lock, holds);
  }

 private:
  struct Task {
    std::uint64_t batch;
    std::uint32_t number;
    Client* client;
  };
  using Lock = std::unique_lock<std::mutex>;
  static bool comes_later(const Task& a, const Task& b) noexcept;
  void run(Lock& lock);
  void serve();
  void stop();

  std::mutex mutex_;
  std::condition_variable more_;
  std::condition_variable done_;
  bool ends_ = false;
  std::uint64_t next_batch_ = 0;
  std::vector<Task> tasks_;  // a heap
  std::vector<std::thread> threads_;
};

}  // namespace terse::inline v0_1
