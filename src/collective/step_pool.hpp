// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <terse/error.hpp>
#include <thread>
#include <vector>

namespace terse::inline v0_1 {

class Runner;

/// What became of a step of computation.
struct StepResult {
  std::optional<Error> failure;
  bool told = false;     ///< the owner of a piece says that something went wrong
  bool flagged = false;  ///< a piece has to be sent again
};

/// Threads that compute steps of runners, beside the thread that advances these. Steps that are ready at one
/// time touch different memory, so results do not depend on who computes what.
class StepPool {
 public:
  /// Errors: out_of_memory where the system gives no threads.
  explicit StepPool(std::size_t threads);
  ~StepPool();
  StepPool(const StepPool&) = delete;
  StepPool& operator=(const StepPool&) = delete;

  /// Has a step computed: the lowest of the runner that came first goes first.
  void lend(Runner& runner, std::uint32_t step);
  /// The caller computes one, if there is any.
  bool help();
  /// What was computed for a runner since it last asked.
  void take_back(Runner& runner);
  /// Waits until something was computed for a runner.
  void wait_for(Runner& runner);
  /// A number for a runner that begins, and room for its steps.
  std::uint64_t next_order(std::size_t steps);

 private:
  struct Task {
    std::uint64_t order;
    std::uint32_t step;
    Runner* runner;
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
  std::uint64_t next_order_ = 0;
  std::vector<Task> tasks_;  // a heap
  std::vector<std::thread> threads_;
};

}  // namespace terse::inline v0_1
