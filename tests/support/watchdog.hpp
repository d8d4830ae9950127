// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace terse::test {

/// Ends the run when one thing that this rank is at has gone on for too long: 60 s, or as many as
/// TERSE_TEST_TIMEOUT_S in the environment says. Before that it says what, and where all threads are.
class Watchdog {
 public:
  explicit Watchdog(int rank);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog();

  /// What this rank is at from now on.
  void now_at(const std::string& where);

 private:
  void watch();

  int rank_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string where_ = "the start";
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  std::chrono::seconds patience_{60};
  std::thread thread_;
};

}  // namespace terse::test
