// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

namespace terse::test {

/// Never returns: what a watchdog must find.
[[gnu::noinline]] inline void hangs_on_purpose() {
  static std::atomic<bool> never = false;
  while (!never) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace terse::test
